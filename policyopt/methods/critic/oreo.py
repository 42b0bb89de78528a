"""OREO."""

from __future__ import annotations

from policyopt.methods.baseline.reinforce import reinforce
from policyopt.parts import JSD, DistributionLoss, NoRatio, SeqMeanTokenMean, SoftBellman, SoftBellmanValue
from policyopt.parts.bellman import Action
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rollout.beam import Beam


@method(parent=reinforce, arxiv="2412.16145", code="jwhj/OREO", confidence="code")
def oreo(
    beta: float = 0.03,
    alpha: float = 0.01,
    action: Action = "token",
    beam: int = 3,
    group_size: int = 1,
) -> Recipe:
    r"""Offline REasoning Optimization: policy and critic are fitted together to the soft Bellman equation, and the critic
    then guides a search.

    .. math:: e_t = V(s_t) + \beta\sum_{j\ge t}\ell_j - R,\qquad \ell = \log\frac{\pi_\theta}{\pi_{ref}},\qquad
              L = \mathrm{mean}\,e_t(\ell_t)^2 + \mathrm{mean}\,e_t(V)^2 + \alpha\,KL(\pi_\theta\|\pi_{ref})

    The residual e is 0 in every state of every response where the policy is optimal under a KL to the reference and V is
    its soft value. Its square is descended twice: in the log-ratio of the state's own action, all else held, and in V, the
    policy held. Means run over the states of a response, then over responses. The equation holds for whoever wrote the
    response, so batches may be old (``update.replay``, ``--staleness``); no responses are compared.

    ``action`` is what is chosen in a state: a token; a step, which is a line of text here; or the whole response. The KL
    is exact, over the vocabulary. Before and after training the held-out questions are answered by beam search too, with
    ``beam`` lines by value (0 for none); in the place of ``rollout`` the same part draws what is trained on. Source:
    arXiv:2412.16145 and the authors' code; beta, alpha and the width are from their scripts. Our reading: the policy draws
    its own responses (their iterations) in the place of a fixed data set.
    """
    return reinforce(baseline="none", group_size=group_size).replace(
        ratio=NoRatio(),
        surrogate=SoftBellman(beta=beta, action=action),
        aggregate=SeqMeanTokenMean(),
        regularizers=(DistributionLoss(of=JSD(beta=1.0, target="reference"), coef=alpha),) if alpha else (),
        critic=SoftBellmanValue(beta=beta, action=action),
        decode=Beam(width=beam, samples=beam) if beam else None,
    )
