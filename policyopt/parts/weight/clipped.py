"""Weights from a bounded ratio."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from policyopt.part import UNITS, Level, NonNegative, Ratio, Unit, Weight, part
from policyopt.parts.surrogate.bounds import Bounded, clip_metrics
from policyopt.rows import Batch, held, masked


@part
class TruncatedRatio(Bounded, Weight):
    r"""The importance ratio, clipped and detached: it corrects the distribution but never silences a token.

    .. math:: w_{i,t} = sg\big[\mathrm{clip}(r_{i,t}, 1-\epsilon_{low}, 1+\epsilon_{high})\big]

    On :class:`LogProb` without bounds it has the gradient of :class:`RatioTimesAdvantage`. Source: CISPO, MiniMax-M1, arXiv:2506.13585, eq. 4-5 (as in verl and open-instruct, ``high`` is relative to 1).
    """

    low: NonNegative | None = None
    """Distance of the lower bound from 1; None for no lower bound."""
    high: NonNegative | None = 0.2
    """Distance of the upper bound from 1; None for no upper bound. TRL's ``epsilon_high`` with the loss ``cispo`` is the
    bound itself: its 5 is 4 here."""

    def __call__(self, log_ratio: Tensor, batch: Batch) -> Tensor:
        return log_ratio.detach().exp().clamp(*self.window(log_ratio, batch))


@part
class ClipMask(Bounded, Weight):
    r"""PPO's clip as a mask: 0 where the minimum would silence a token, 1 elsewhere.

    .. math:: M_{i,t} = 1 - [A > 0 \wedge r > 1+\epsilon_{high}] - [A < 0 \wedge r < 1-\epsilon_{low}]

    On the unclipped surrogate it leaves the gradient of :class:`PPOClip`, but not the value of silent tokens. ``two`` sides mask every
    ratio outside the bounds; a ``ring`` lets those through again that are far out and that the update pulls back: good
    tokens at or below :math:`1 - \epsilon'_{low}`, bad ones at or above :math:`1 + \epsilon'_{high}`. r is the ratio of the loss,
    or one of its own: with ``SequenceRatio()`` whole responses are masked. Sources: MiniRL,
    arXiv:2512.01374 (one); REC, arXiv:2509.24203, and the authors' code (modelscope/Trinity-RFT); off-policy sequence masking,
    DeepSeek-V3.2, arXiv:2512.02556 (one, a ratio of its own).
    """

    sides: Literal["one", "two", "ring"] = "one"
    """Which ratios are masked."""
    ring_low: NonNegative = 0.6
    """The outer lower distance from 1, of a ring."""
    ring_high: NonNegative = 2.0
    """The outer upper distance from 1, of a ring."""
    ratio: Ratio | None = None
    """The ratio that is looked at; None for that of the loss."""

    @property
    def needs(self) -> frozenset[str]:
        """What the bounds and the ratio read."""
        return super().needs | (self.ratio.needs if self.ratio else frozenset())

    @property
    def unit(self) -> Unit:
        """That of the bounds, or of the ratio where it is larger."""
        return max(super().unit, self.ratio.unit if self.ratio else "token", key=UNITS.index)

    @property
    def levels(self) -> frozenset[Level]:
        """The ratios of a loss that it goes with: those that its bounds make sense for, or any where it has one of its own."""
        return super().levels if self.ratio is None else frozenset({"token", "sequence"})

    def judged(self, log_ratio: Tensor, batch: Batch) -> Tensor:
        """The logarithm of the ratio that is looked at, [N, T]."""
        return log_ratio if self.ratio is None else held(masked(self.ratio(batch).detach(), batch.mask))

    def metrics(self, log_ratio: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        found = super().metrics(self.judged(log_ratio, batch), batch)
        return found if self.ratio is None else {"offpolicy/masked": 1 - self(log_ratio, batch)}

    def __call__(self, log_ratio: Tensor, batch: Batch) -> Tensor:
        log_ratio = self.judged(log_ratio, batch)
        ratio, advantage = log_ratio.exp(), batch.advantage
        low, high = self.window(log_ratio, batch)
        if self.sides == "one":
            beyond = clip_metrics(ratio, advantage, low, high)
            return 1 - beyond["clip_fraction/low"] - beyond["clip_fraction/high"]
        keep = (ratio >= low) & (ratio <= high)
        if self.sides == "ring":
            keep |= (advantage >= 0) & (ratio <= 1 - self.ring_low)
            keep |= (advantage <= 0) & (ratio >= 1 + self.ring_high)
        return keep.to(ratio)
