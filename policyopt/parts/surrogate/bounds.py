"""Bounds on a ratio, and what clips at them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from policyopt.part import Level, NonNegative, Part, Wrapper, part
from policyopt.rows import Batch


class Bounds(Part):
    """From the two distances ``low`` and ``high`` to the ratios at which each token is clipped."""

    levels: ClassVar[frozenset[Level]] = frozenset({"token", "sequence"})
    """The ratios that they make sense for."""

    def __call__(self, low: float, high: float, log_ratio: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """The lower and the upper bound of the ratio, each [N, T] or one number for all; a distance may be infinite.
        No gradient."""
        raise NotImplementedError

    def metrics(self, low: Tensor, high: Tensor, log_ratio: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        """What the log should say of the bounds that were found: name -> [N, T] or one number."""
        return {"bounds/low": low.clamp(min=0), "bounds/high": high}  # a ratio is never below 0


@part
class FixedBounds(Bounds):
    r"""The same for all tokens: :math:`[1-\epsilon_{low}, 1+\epsilon_{high}]`. Source: PPO, arXiv:1707.06347, eq. 7."""

    def __call__(self, low: float, high: float, log_ratio: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        return log_ratio.new_tensor(1 - low), log_ratio.new_tensor(1 + high)

    def metrics(self, low: Tensor, high: Tensor, log_ratio: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        return {}


def pessimistic(ratio: Tensor, advantage: Tensor, low: Tensor, high: Tensor, dual: float | None = None) -> Tensor:
    """The ratio as PPO's minimum counts it: no more than ``high`` where the advantage is positive, no less than ``low``
    (and no more than ``dual``) where it is negative. Its gradient ends there."""
    bad = ratio.clamp(min=low)
    return torch.where(advantage > 0, ratio.clamp(max=high), bad if dual is None else bad.clamp(max=dual))


def clip_metrics(ratio: Tensor, advantage: Tensor, low: Tensor, high: Tensor) -> dict[str, Tensor]:
    """Which tokens lie beyond the bound that matters for the sign of their advantage, [N, T] of 0 and 1."""
    return {
        "clip_fraction/low": ((ratio < low) & (advantage < 0)).to(ratio),
        "clip_fraction/high": ((ratio > high) & (advantage > 0)).to(ratio),
    }


@part
class Bounded(Wrapper):
    """What parts that clip have in common: two distances from 1, and what becomes of them at each token.

    They are distances, as verl's ``clip_ratio_low`` and ``clip_ratio_high`` and TRL's ``epsilon`` and ``epsilon_high`` are: 0.2
    and 0.28 are the ratios 0.8 and 1.28.
    """

    low: NonNegative | None = 0.2
    """How far below 1 a ratio may fall before a bad token stops being pushed down; None for no lower bound."""
    high: NonNegative | None = 0.2
    """How far above 1 a ratio may rise before a good token stops being pushed up; None for no upper bound."""
    bounds: Bounds = FixedBounds()
    """What becomes of the two distances at each token."""

    around: ClassVar[str] = "bounds"

    @property
    def levels(self) -> frozenset[Level]:
        """The ratios that the bounds make sense for."""
        return self.bounds.levels

    def window(self, log_ratio: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """The bounds of the ratio, each [N, T] or one number."""
        low, high = (math.inf if x is None else x for x in (self.low, self.high))
        return self.bounds(low, high, log_ratio.detach(), batch)

    def metrics(self, log_ratio: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        """How many tokens are clipped, and the mean bounds where they move."""
        low, high = self.window(log_ratio, batch)
        metrics = self.bounds.metrics(low, high, log_ratio.detach(), batch)
        return clip_metrics(log_ratio.exp(), batch.advantage, low, high) | {
            name: x.expand_as(log_ratio) for name, x in metrics.items()
        }
