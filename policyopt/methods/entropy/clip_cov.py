"""Clip-Cov."""

from __future__ import annotations

from policyopt.methods.group.grpo import grpo
from policyopt.parts import CovarianceBand, TokenMean
from policyopt.parts.select import SelectedWeight
from policyopt.recipe import Recipe, Update
from policyopt.registry import method


@method(parent=grpo, arxiv="2505.22617", code="PRIME-RL/Entropy-Mechanism-of-RL", confidence="code")
def clip_cov(
    low: float | None = 1.0,
    high: float | None = 1.0,
    cov_low: float = 1.0,
    cov_high: float = 5.0,
    cov_ratio: float = 2e-4,
    minibatches: int = 8,
    group_size: int = 8,
) -> Recipe:
    r"""Keep the entropy up by taking a few random tokens out of the gradient, among those that drain it.

    .. math:: L = \frac{1}{\sum_i|y_i|}\sum_{i,t}(1 - sel_{i,t})\max(-r_{i,t}A_i, -\mathrm{clip}(r_{i,t})A_i)

    Eligible are tokens that the clip lets through and whose :math:`(A-\bar A)(\log\pi-\mathrm{mean}\log\pi)` lies between
    ``cov_low`` and ``cov_high``; ``cov_ratio`` of all tokens are drawn, at least one. Defaults from the authors'
    scripts: ratios in [0, 2], no KL, 8 mini-batches. Our reading: means over the mini-batch (the code: micro-batch).
    """
    band = CovarianceBand(fraction=cov_ratio, above=cov_low, below=cov_high, low=low, high=high)
    return grpo(low, high, kl_coef=0.0, group_size=group_size).replace(
        weight=(SelectedWeight(tokens=band, inside=0.0, outside=1.0),),
        aggregate=TokenMean(),
        update=Update(minibatches=minibatches),
    )
