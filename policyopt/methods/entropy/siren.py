"""SIREN."""

from __future__ import annotations

from typing import Literal

from policyopt.methods.aggregation.dr_grpo import dr_grpo
from policyopt.parts.entropy import EntropyAnchor
from policyopt.parts.select import AboveQuantile
from policyopt.parts.statistic import NucleusEntropy
from policyopt.parts.thermostat import FirstValue
from policyopt.recipe import Recipe, Update
from policyopt.registry import method


@method(parent=dr_grpo, arxiv="2509.25133", code="Linn3a/siren", confidence="code")
def siren(
    beta: float = 0.005,
    top_p: float = 0.8,
    peak_quantile: float = 0.8,
    anchor: float | None = None,
    edge: Literal["exclusive", "inclusive"] = "exclusive",
    low: float | None = 0.28,
    high: float | None = 0.28,
    loss_norm: float | None = None,
    minibatches: int = 1,
    group_size: int = 8,
) -> Recipe:
    r"""Dr. GRPO that holds the entropy of nucleus and peaks at its first value, instead of raising it without end.

    .. math:: L = L_{PG} + \beta\,(\bar H - \bar H_0)^2,\qquad
              \bar H = \frac1N\sum_i\frac{\sum_t 1[H^p_{i,t} > q_i]\,H^p_{i,t}}{\sum_t 1[H^p_{i,t} > q_i]}

    H^p [N, T] is the entropy of the nucleus of mass ``top_p``, q_i [N] its ``peak_quantile`` inside response i. The
    anchor H_0 is measured in the first step, or given. Defaults from the authors' scripts (16 updates per rollout
    there: ``minibatches``). Our reading: the token that crosses top_p is out of the nucleus, as in the code; the
    regulariser begins with the second step, since in the first the policy is the anchor's.
    """
    peaks = AboveQuantile(NucleusEntropy(top_p, edge), q=peak_quantile, scope="row", strict=True)
    return dr_grpo(low, high, loss_norm, group_size).replace(
        regularizers=(EntropyAnchor(beta, anchor, peaks),),
        controllers=(FirstValue("regularizers.0.anchor", "entropy/peak"),),
        update=Update(minibatches=minibatches),
    )
