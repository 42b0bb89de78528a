"""Bounds: between which ratios a token moves freely, and what all parts that clip have in common."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor

from policyopt.batch import Batch, masked
from policyopt.parts.base import Fraction, Level, NonNegative, Part, Positive, Unit, Wrapper, part


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


@part
class ProbabilityBounds(Bounds):
    r"""Wide for tokens that the old policy found unlikely: the bounds of :math:`|r-1|\,\pi_\theta \le \epsilon`.

    .. math:: lo = \tfrac12 + \tfrac12\sqrt{\max(1 - 4\epsilon_{low}/q, 0)},\qquad
              hi = \min\big(\tfrac12 + \tfrac12\sqrt{1 + 4\epsilon_{high}/q},\, c\big),\qquad q = \pi_{old}(y_{i,t})

    The lower bound never falls below 1/2. Source: DCPO, arXiv:2509.02333, and the authors' code (lime-RL/DCPO).
    """

    cap: Positive | None = 10.0
    """c, the largest upper bound; None for no limit."""

    levels: ClassVar[frozenset[Level]] = frozenset({"token"})

    def __call__(self, low: float, high: float, log_ratio: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        rarity = 4 * (-batch.old_logp).exp()
        lower = 0.5 + 0.5 * (1 - low * rarity).clamp(min=0).sqrt()
        return lower, (0.5 + 0.5 * (1 + high * rarity).sqrt()).clamp(max=math.inf if self.cap is None else self.cap)


@part
class ProximalBounds(Bounds):
    r"""Centred where the policy stood when training on the batch began, however old the row is.

    .. math:: [c - \epsilon_{low}, c + \epsilon_{high}],\qquad c = \pi_{prox}(y_{i,t}) / \pi_{old}(y_{i,t})

    On the first update no token is clipped; for fresh rows c is 1. Source: ReMix, arXiv:2507.06892.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"prox_logp"})
    levels: ClassVar[frozenset[Level]] = frozenset({"token"})

    def __call__(self, low: float, high: float, log_ratio: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        centre = self.centre(batch)
        return centre - low, centre + high

    def centre(self, batch: Batch) -> Tensor:
        """c, [N, T]."""
        return (batch.prox_logp - batch.old_logp).exp()

    def metrics(self, low: Tensor, high: Tensor, log_ratio: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        return {"bounds/centre": self.centre(batch)}


def entropy_scale(entropy: Tensor, mask: Tensor, pivot: float) -> Tensor:
    r"""Where the entropy of each token lies among those of the batch, [N, T] in [-1, 1].

    .. math:: h = \log\max(H, 10^{-8}) - \mathrm{quantile}_{pivot},\qquad \hat h = h/\max h\ (h > 0),\quad h/|\min h|\ (h \le 0)

    The quantile is the nearest value. No gradient.
    """
    level = entropy.detach().clamp(min=1e-8).log()
    ranked = level[mask.bool()].sort().values
    if not len(ranked):
        return torch.zeros_like(level)
    level = masked(level - ranked[round(pivot * (len(ranked) - 1))], mask)
    top, bottom = level.max(), -level.min()
    return torch.where(level > 0, level / top, level / torch.where(bottom > 0, bottom, 1))


@part
class EntropyBounds(Bounds):
    r"""Wider upwards for uncertain tokens, wider downwards for confident ones.

    .. math:: lo = 1 - \epsilon_{low}\,(1 + \alpha\max(-\hat h, 0)),\qquad hi = 1 + \epsilon_{high}\,(1 + \alpha\max(\hat h, 0))

    h is the position of the token's entropy in the batch, see :func:`entropy_scale`. Source: HAPO, arXiv:2509.16591,
    and the authors' code (starriver030515/HAPO). Our reading: the entropy is the current policy's, without gradient;
    confident tokens have h < 0, as the text says (the released code turns the sign).
    """

    alpha: NonNegative = 1.0
    """How far the bounds may widen, as a multiple of the distance."""
    pivot: Fraction = 0.8
    """The quantile of entropy at which nothing changes."""

    needs: ClassVar[frozenset[str]] = frozenset({"entropy"})
    unit: ClassVar[Unit] = "batch"
    levels: ClassVar[frozenset[Level]] = frozenset({"token"})

    def scale(self, batch: Batch) -> Tensor:
        """h, [N, T]."""
        return entropy_scale(batch.entropy, batch.mask, self.pivot)

    def __call__(self, low: float, high: float, log_ratio: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        h = self.alpha * self.scale(batch)
        return 1 - low * (1 - h.clamp(max=0)), 1 + high * (1 + h.clamp(min=0))


@part
class BalancedBounds(Bounds):
    r"""Bounds widened, batch by batch, until tokens with positive advantage supply a target share of the signal.

    The search starts at :math:`[1-\epsilon_{low}, 1+\epsilon_{high}]`. Order ``paper``: the upper bound rises by
    ``high_step`` to ``high_max``, then the lower one by ``low_step`` to ``low_max``. Order ``code``: the lower one
    first, and the last step is cut to the limit. It stops at the first pair with :math:`\rho \ge target`, else at
    the last. With sums over tokens of either sign of advantage, :math:`\rho` is

    - ``gradient-share``: :math:`S_+/(S_+ + S_-)` of :math:`r|A|` over the tokens inside the bounds;
    - ``value-share``: the same of :math:`\min(r, hi)|A|` and :math:`\max(r, lo)|A|` over all tokens;
    - ``value-ratio``: :math:`S_+/S_-` of these.

    Without negative tokens the target is met; without any signal nothing moves. Source: BAPO, arXiv:2510.18927,
    algorithm 1, and the authors' code (WooooDyy/BAPO), which disagree; eq. 8 also multiplies each token by its
    probability. Our reading: ``gradient-share``, since raising a lower bound adds to the negative value sums.
    """

    target: NonNegative = 0.4
    """Wanted rho."""
    search: Literal["paper", "code"] = "paper"
    """Which bound moves first."""
    measure: Literal["gradient-share", "value-share", "value-ratio"] = "gradient-share"
    """What rho is."""
    low_max: Positive = 0.9
    """Largest lower bound, as a ratio."""
    high_max: Positive = 3.0
    """Largest upper bound, as a ratio."""
    low_step: Positive = 0.02
    """Step of the lower bound."""
    high_step: Positive = 0.05
    """Step of the upper bound."""

    unit: ClassVar[Unit] = "batch"

    def __call__(self, low: float, high: float, log_ratio: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        lower, upper = 1 - low, 1 + high
        for lower, upper in self.pairs(1 - low, 1 + high):
            if self.rho(log_ratio, batch, lower, upper) >= self.target:
                break
        return log_ratio.new_tensor(lower), log_ratio.new_tensor(upper)

    def metrics(self, low: Tensor, high: Tensor, log_ratio: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        found = self.rho(log_ratio, batch, float(low), float(high))
        return {"bounds/low": low.clamp(min=0), "bounds/high": high, "bounds/rho": log_ratio.new_tensor(found)}

    def pairs(self, lower: float, upper: float) -> Iterator[tuple[float, float]]:
        """The bounds in the order in which they are tried."""
        cut = self.search == "code"
        lows = steps(lower, self.low_max, self.low_step, cut)
        highs = steps(upper, self.high_max, self.high_step, cut)
        if cut:
            yield from ((x, upper) for x in lows)
            yield from ((lows[-1], x) for x in highs[1:])
        else:  # algorithm 1 ends where the lower bound cannot move, even before the upper one has
            yield from ((lower, x) for x in (highs if len(lows) > 1 else highs[:1]))
            yield from ((x, highs[-1]) for x in lows[1:])

    def rho(self, log_ratio: Tensor, batch: Batch, lower: float, upper: float) -> float:
        """The share (or ratio) of the positive signal under a pair of bounds."""
        ratio, advantage = masked(log_ratio.exp(), batch.mask), masked(batch.advantage, batch.mask)
        good = advantage > 0
        if self.measure == "gradient-share":
            counted = torch.where(torch.where(good, ratio > upper, ratio < lower), 0.0, ratio)
        else:
            counted = torch.where(good, ratio.clamp(max=upper), ratio.clamp(min=lower))
        signal = (counted * advantage).double()
        plus, minus = float(signal.clamp(min=0).sum()), float((-signal).clamp(min=0).sum())
        if self.measure == "value-ratio":
            return plus / minus if minus else math.inf
        return plus / (plus + minus) if minus else 1.0


def steps(start: float, limit: float, step: float, cut: bool) -> list[float]:
    """``start``, ``start + step``, ... up to ``limit``; ``cut`` ends with ``limit`` itself."""
    count = math.floor((limit - start) / step + 1e-9) if math.isfinite(start) else 0
    values = [start + k * step for k in range(max(0, count) + 1)]
    return [*values, limit] if cut and values[-1] < limit - 1e-9 and math.isfinite(start) else values


def pessimistic(ratio: Tensor, advantage: Tensor, low: Tensor, high: Tensor, dual: float | None = None) -> Tensor:
    """The ratio as PPO's minimum counts it: no more than ``high`` where the advantage is positive, no less than ``low``
    (and no more than ``dual``) where it is negative. Its gradient ends there."""
    bad = ratio.clamp(min=low)
    return torch.where(advantage > 0, ratio.clamp(max=high), bad if dual is None else bad.clamp(max=dual))


def clip_metrics(ratio: Tensor, advantage: Tensor, low: Tensor, high: Tensor) -> dict[str, Tensor]:
    """Which tokens lie beyond the bound that matters for the sign of their advantage, [N, T] of 0 and 1."""
    return {
        "clip/low": ((ratio < low) & (advantage < 0)).to(ratio),
        "clip/high": ((ratio > high) & (advantage > 0)).to(ratio),
    }


@part
class Bounded(Wrapper):
    """What parts that clip have in common: two distances from 1, and what becomes of them at each token."""

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
        found = self.bounds.metrics(low, high, log_ratio.detach(), batch)
        return clip_metrics(log_ratio.exp(), batch.advantage, low, high) | {
            name: x.expand_as(log_ratio) for name, x in found.items()
        }
