"""R2VPO."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from policyopt.claims import Claim, Effect
from policyopt.control import Follows
from policyopt.methods.group.grpo import grpo
from policyopt.part import Finite, Positive, part
from policyopt.parts import Proximal, RatioTimesAdvantage, TokenMean
from policyopt.recipe import Recipe, Update
from policyopt.registry import method


@part
class DualAscent(Follows):
    r"""A Lagrange multiplier that learns to hold a metric at or below a limit.

    .. math:: \lambda \leftarrow \max\big(0,\; \lambda + \eta\,(m - limit)\big)

    While the metric lies below the limit, the multiplier falls to 0 and stays there. Source: projected gradient ascent on
    the dual; R2VPO, arXiv:2601.03320 (the variance of the ratio). Our reading: one step per batch, with the mean of the
    metric over the updates on it.
    """

    field: str = "regularizers.Proximal.coef"
    """Path of the multiplier."""
    metric: str = dataclasses.field(default="proximal/chi2", kw_only=True)
    """What is held down."""
    limit: Finite = 0.01
    """Where it is held."""
    lr: Positive = 0.1
    """eta."""

    def follow(self, value: float, measured: float, metrics: Mapping[str, float]) -> float:
        return max(0.0, value + self.lr * (measured - self.limit))


@method(
    parent=grpo,
    arxiv="2601.03320",
    confidence="secondary",
    claim=Claim(
        "A brake that grows with the variance of the ratio makes more of stale data than a clip does.",
        "stale",
        (Effect("accuracy", "higher", 0.02),),
        ours={"minibatches": 1},
        theirs={"kl-coef": 0.0},
    ),
)
def r2vpo(
    lam: float = 0.04,
    delta: float = 0.01,
    dual_lr: float = 0.1,
    replay: int = 0,
    minibatches: int = 4,
    group_size: int = 8,
) -> Recipe:
    r"""Ratio-Variance Regularized Policy Optimization: the variance of the ratio is held at a limit by a learned
    multiplier, and nothing is clipped.

    .. math:: L = -\frac{1}{\sum_i|y_i|}\sum_{i,t}\big(r_{i,t}A_i - \lambda(r_{i,t} - 1)^2\big),\qquad
              \lambda \leftarrow \max(0, \lambda + \eta(v - \delta)),\quad v = \mathrm{mean}_{tok}(r-1)^2

    The advantage of a token becomes :math:`A - 2\lambda(r-1)`: a brake that grows with the distance and turns beyond
    :math:`r = 1 + A/2\lambda`. lambda = 0 is the unclipped ratio. eta = ``dual_lr``; ``replay`` trains on earlier
    batches again (the off-policy variant). Source: the abstract and a third-party implementation: lambda 0.04 is its
    constant, delta and eta are ours, as is the token mean. Our reading: the variance is taken about 1; one step of the
    multiplier per batch.
    """
    return grpo(kl_coef=0.0, group_size=group_size).replace(
        surrogate=RatioTimesAdvantage(),
        regularizers=(Proximal(coef=lam, deviation="chi2"),),
        aggregate=TokenMean(),
        update=Update(minibatches=minibatches, replay=replay),
        controllers=(DualAscent(metric="proximal/chi2", limit=delta, lr=dual_lr),),
    )
