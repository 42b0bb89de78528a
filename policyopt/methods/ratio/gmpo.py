"""GMPO."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.methods.group.grpo import grpo
from policyopt.part import UNITS, Level, NonNegative, Surrogate, Unit, Wrapper, part
from policyopt.parts import AboveQuantile, Selector
from policyopt.parts.surrogate.bounds import clip_metrics, pessimistic
from policyopt.recipe import Recipe, Update
from policyopt.registry import method
from policyopt.rows import Batch, masked_mean


@part
class GeometricMeanClip(Wrapper, Surrogate):
    r"""The geometric mean of a response's ratios, each clipped on the side that its advantage makes optimistic.

    .. math:: -A_{i,t}\,\rho_i,\qquad \rho_i = \exp\Big(\frac{1}{|y_i|}\sum_t c_{i,t}\Big),\qquad
              c_{i,t} = \min(\log r_{i,t}, \epsilon_{high})\ (A > 0),\quad \max(\log r_{i,t}, -\epsilon_{low})\ (A < 0)

    A clipped token has no gradient, but counts in the mean. With ``tokens`` the mean runs over those alone: the others are no
    tokens of the response, neither above nor below. The bounds are log-ratios. Source: GMPO, arXiv:2507.20673,
    and the authors' code (callsys/GMPO).
    """

    low: NonNegative | None = 0.4
    """How far the log-ratio of a bad token may fall below 0; None for no lower bound."""
    high: NonNegative | None = 0.4
    """How far the log-ratio of a good token may rise above 0; None for no upper bound."""
    tokens: Selector | None = None
    """Which tokens the mean runs over; None for all. A response without any has the ratio 1, and no gradient."""

    around: ClassVar[str] = "tokens"
    levels: ClassVar[frozenset[Level]] = frozenset({"token"})

    @property
    def unit(self) -> Unit:
        """The row, or what picks its tokens where that needs more."""
        return max("row", super().unit, key=UNITS.index)

    def __call__(self, log_ratio: Tensor, batch: Batch) -> Tensor:
        return -self.mean_ratio(log_ratio, batch) * batch.advantage

    def mean_ratio(self, log_ratio: Tensor, batch: Batch) -> Tensor:
        """rho, repeated over the tokens of each row, [N, T]."""
        clipped = pessimistic(log_ratio, batch.advantage, *self._window(log_ratio))
        counted = batch.mask if self.tokens is None else self.tokens(batch).to(batch.mask)
        return masked_mean(clipped, counted, dim=-1, keepdim=True).exp().expand_as(log_ratio)

    def metrics(self, log_ratio: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        return clip_metrics(log_ratio, batch.advantage, *self._window(log_ratio))

    def _window(self, log_ratio: Tensor) -> tuple[Tensor, Tensor]:
        low, high = (math.inf if x is None else x for x in (self.low, self.high))
        return log_ratio.new_tensor(-low), log_ratio.new_tensor(high)


@method(
    parent=grpo,
    arxiv="2507.20673",
    code="callsys/GMPO",
    confidence="code",
    claim=Claim(
        "The geometric mean of the ratios is not ruled by outliers: updates are more stable, and more is learned.",
        "stale",
        (Effect("drop", "lower", 0.01), Effect("accuracy", "higher", 0.02)),
        theirs={"kl-coef": 0.0},
    ),
)
def gmpo(
    low: float | None = 0.4, high: float | None = 0.4, rho: float = 1.0, minibatches: int = 1, group_size: int = 8
) -> Recipe:
    r"""Geometric-Mean Policy Optimization: the geometric mean of a response's ratios, each token clipped before it.

    .. math:: L = -\frac1N\sum_i A_i\exp\Big(\frac1{|y_i|}\sum_t c_{i,t}\Big),\qquad
              c_{i,t} = \min(\log r_{i,t}, \epsilon_h)\ (A_i > 0),\quad \max(\log r_{i,t}, -\epsilon_l)\ (A_i < 0)

    GRPO's arithmetic mean is ruled by outliers. Bounds are log-ratios, so that 0.4 is a ratio between 0.67 and 1.49.
    The gradient is :math:`-A_i\rho_i/(N|y_i|)` on tokens that are not clipped, 0 on those that are; without any it is
    GSPO without a clip. No KL. With ``rho`` below 1 the mean runs over the tokens of the mini-batch's highest entropies, a
    share of rho, and |y_i| counts these. Defaults from the authors' script; its eps of the standard deviation is 1e-8.
    """
    tokens = AboveQuantile("entropy", q=1 - rho) if rho < 1 else None
    return grpo(low, high, kl_coef=0.0, group_size=group_size).replace(
        surrogate=GeometricMeanClip(low=low, high=high, tokens=tokens), update=Update(minibatches=minibatches)
    )
