"""IPO."""

from __future__ import annotations

from policyopt.claims import Claim, Effect
from policyopt.methods.preference.dpo import dpo
from policyopt.parts import Pairs, RowScore, SquareTo
from policyopt.recipe import Recipe
from policyopt.registry import method


@method(
    parent=dpo,
    arxiv="2310.12036",
    confidence="secondary",
    claim=Claim(
        "A target for the margin keeps the policy near the reference where DPO drives preferences that are never contradicted "
        "to certainty, and as many pairs come to be in order.",
        "pairs",
        (Effect("pairs/margin", "lower", 5.0), Effect("pairs/accuracy", "higher", -0.02)),
        both={"steps": 10},
    ),
)
def ipo(tau: float = 0.1, mean: bool = False) -> Recipe:
    r"""Identity Preference Optimization: the margin of each pair is fitted to a number that the strength of the KL sets.

    .. math:: L = \mathrm{mean}_{pairs}\Big(h_w - h_l - \frac{1}{2\tau}\Big)^2,\qquad h = \sum_t\log\frac{\pi_\theta}{\pi_{ref}}(y_t)

    tau is the KL strength of :math:`\max E[p^*(y\succ y')] - \tau KL(\pi\|\pi_{ref})`, so that regularisation does not vanish where
    a preference is certain. Beyond the target the gradient turns. ``mean`` takes the mean over tokens for h, as TRL and HALOs
    do, where the authors are said to have confirmed it; the paper sums. Targets of the two are not comparable.
    """
    return dpo().replace(
        surrogate=Pairs(
            score=RowScore(against="reference", reduce="mean" if mean else "sum"), link=SquareTo(target=1 / (2 * tau))
        )
    )
