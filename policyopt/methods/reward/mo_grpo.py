"""MO-GRPO."""

from __future__ import annotations

from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.methods.group.grpo import grpo
from policyopt.parts import WeightedSum
from policyopt.recipe import Recipe
from policyopt.registry import method


def score_regression(predicted: Tensor, label: Tensor) -> Tensor:
    r"""The loss of a reward model with a head for each of K scores: the mean of :math:`(f_\phi(x_n, y_n)_k - s_{n,k})^2` over
    samples and scores, [N, K] each."""
    return (predicted - label).square().mean()


@method(
    parent=grpo,
    arxiv="2503.21819",
    confidence="secondary",
    claim=Claim(
        "Several scores of a response, added up with weights in the place of one, rise together.",
        "json",
        (Effect("accuracy", "higher", 0.05), Effect("format", "higher", 0.05)),
    ),
)
def mo_grpo(
    weights: tuple[tuple[str, float], ...] = (("correct", 0.5), ("formatted", 0.5)),
    low: float | None = 0.2,
    high: float | None = 0.2,
    kl_coef: float = 0.04,
    group_size: int = 8,
) -> Recipe:
    r"""Multi-objective GRPO: the weighted sum of several scores of a response is the reward, and is normalised once.

    .. math:: R_i = \sum_k w_k f_k(x, y_i),\qquad A_i = \frac{R_i - \mathrm{mean}}{\mathrm{std} + \epsilon}

    ``weights`` are pairs of the name of a component of the judge and its weight w. A component counts by :math:`w_k\sigma_k`: one that
    hardly differs within a group hardly counts (normalising each first, as GDPO does, gives all the same spread). A factor on all
    weights, or a constant on one component, changes nothing. Watch ``component/NAME`` in the log: the sum may rise while one falls. In the paper
    one model with four heads, learned by :func:`score_regression`, gives the scores. Source: arXiv:2503.21819, after third parties. Our
    reading: equal weights that add up to 1, of what every judge says; KL and clip as in GRPO.
    """
    return grpo(low, high, kl_coef=kl_coef, group_size=group_size).replace(shape=(WeightedSum(weights=weights),))
