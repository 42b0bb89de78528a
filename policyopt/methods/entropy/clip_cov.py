"""Clip-Cov."""

from __future__ import annotations

import math
from typing import ClassVar

from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.methods.group.grpo import grpo
from policyopt.part import Finite, Fraction, NonNegative, Unit, part
from policyopt.parts import SelectedWeight, Selector, TokenMean
from policyopt.parts.select.covariance import covariance, largest, quota
from policyopt.parts.surrogate.bounds import clip_metrics
from policyopt.recipe import Recipe, Update
from policyopt.registry import method
from policyopt.rows import Batch


@part
class CovarianceBand(Selector):
    r"""A random :math:`\max(1, \lfloor q\,n \rfloor)` of the tokens whose :func:`covariance` lies inside a band.

    Tokens that PPO's bounds clip have no gradient anyway and are not drawn. The draw takes the largest of the random
    numbers that came with the batch (``noise``), so it is the same for any order of rows. Source: Clip-Cov,
    arXiv:2505.22617.
    """

    fraction: Fraction = 2e-4
    """q, a share of all tokens; 0 picks none."""
    above: Finite = 1.0
    """The band's lower end."""
    below: Finite = 5.0
    """The band's upper end."""
    low: NonNegative | None = 1.0
    """PPO's lower distance from 1; None for no lower bound."""
    high: NonNegative | None = 1.0
    """PPO's upper distance from 1; None for no upper bound."""

    needs: ClassVar[frozenset[str]] = frozenset({"noise"})
    unit: ClassVar[Unit] = "batch"

    def eligible(self, batch: Batch) -> Tensor:
        """The tokens that may be drawn, boolean [N, T]."""
        low, high = (batch.logp.new_tensor(math.inf if x is None else x) for x in (self.low, self.high))
        clipped = clip_metrics((batch.logp - batch.old_logp).exp(), batch.advantage, 1 - low, 1 + high)
        found = covariance(batch)
        inside = (found > self.above) & (found < self.below)
        return batch.mask.bool() & inside & (clipped["clip_fraction/low"] + clipped["clip_fraction/high"] == 0)

    def __call__(self, batch: Batch) -> Tensor:
        return largest(batch.noise, self.eligible(batch), quota(self.fraction, batch))


@method(
    parent=grpo,
    arxiv="2505.22617",
    code="PRIME-RL/Entropy-Mechanism-of-RL",
    confidence="code",
    claim=Claim(
        "A few tokens drain the entropy: with some of those out of the gradient it stays up, and as many answers "
        "are right.",
        "many-answers",
        (Effect("entropy", "higher", 0.02), Effect("accuracy", "higher", -0.01)),
        both={"recipe.update.minibatches": 8},
        theirs={"kl-coef": 0.0},
    ),
)
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
