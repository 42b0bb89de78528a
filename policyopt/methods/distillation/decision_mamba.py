"""Decision Mamba."""

from __future__ import annotations

from typing import Any

from policyopt.claims import Claim
from policyopt.control import Schedule
from policyopt.methods.preference.sft import sft
from policyopt.part import Count, Fraction
from policyopt.parts import JSD, DistributionLoss, Likelihood, Reset
from policyopt.recipe import Recipe
from policyopt.registry import method


@method(
    parent=sft,
    arxiv="2406.05427",
    code="aopolin-lv/DecisionMamba",
    confidence="code",
    claim=Claim(
        "Targets that are mixed with what an earlier policy would have done bear bad demonstrations better than cloning does.",
        beyond="The paper measures control from logged trajectories with a network of its own, and no testbed here has completions that are partly bad.",
    ),
)
def decision_mamba(alpha: Fraction = 0.85, cap: Fraction = 0.5, iterations: Count = 40, every: Count = 100) -> Recipe:
    r"""Progressive self-evolution: supervised fine-tuning towards the demonstration, mixed more and more with what an earlier policy says.

    .. math:: L = -\frac{1}{\sum_i|y_i|}\sum_{i,t}\sum_v \tilde p_{i,t}(v)\log\pi_\theta(v),\qquad \tilde p = (1 - \beta_k)\,1_{y_{i,t}} + \beta_k\,\pi_{k-1},\qquad
              \beta_k = \min\Big(c,\; \alpha\,\frac{k}{K}\Big)

    :math:`\pi_{k-1}` is the policy as it was at the end of the iteration before, of ``every`` steps each; it does not learn. The likelihood has :math:`1 - \beta`, the divergence of
    the earlier policy :math:`\beta`, which is the cross-entropy up to the earlier policy's own entropy. An iteration that is over lends nothing to the first one, which is SFT, as is all of it with ``alpha`` 0. With an earlier
    policy that were perfect, the noise of demonstrations would weigh :math:`1 - \beta`.

    Source: arXiv:2406.05427 and the authors' code (aopolin-lv/DecisionMamba): K 40, c 0.5, alpha 0.85 by the name of a checkpoint, iterations of 2500 steps there. The released code mixes with the prediction being trained and
    sets the coefficient to 0, so that it regularises nothing; this follows the paper. Our reading: actions are tokens, whose squared error becomes
    the cross-entropy, and the policy before is that of the last iteration. The network, and the heads that predict states and returns, are not here.
    """
    course: dict[str, Any] = {"steps": iterations * every, "stairs": iterations, "delay": every - 1}
    return sft().replace(
        regularizers=(
            Likelihood(coef=1.0, rows=None),
            DistributionLoss(of=JSD(beta=0.0, target="reference"), coef=0.0),
        ),
        reference=Reset(every=every),
        controllers=(
            Schedule(
                "regularizers.Likelihood.coef",
                start_value=1.0,
                end_value=1.0 - alpha,
                least=1.0 - cap,
                label="own",
                **course,
            ),
            Schedule(
                "regularizers.DistributionLoss.coef", start_value=0.0, end_value=alpha, most=cap, label="past", **course
            ),
        ),
    )
