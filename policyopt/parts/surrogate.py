"""Surrogates: the loss of a token, given its log-ratio and its advantage. All are minimised."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from policyopt.batch import Batch
from policyopt.parts.base import NonNegative, Surrogate, part


def clip_ratio(ratio: Tensor, low: float | None, high: float | None) -> Tensor:
    """The ratio clipped to [1 - low, 1 + high]; None is no bound on that side."""
    return ratio.clamp(-math.inf if low is None else 1 - low, math.inf if high is None else 1 + high)


def clip_metrics(log_ratio: Tensor, batch: Batch, low: float | None, high: float | None) -> Mapping[str, Tensor]:
    """Which tokens lie beyond the bound that matters for the sign of their advantage, [N, T] of 0 and 1."""
    ratio = log_ratio.exp()
    below = torch.zeros_like(ratio) if low is None else ((ratio < 1 - low) & (batch.advantage < 0)).to(ratio)
    above = torch.zeros_like(ratio) if high is None else ((ratio > 1 + high) & (batch.advantage > 0)).to(ratio)
    return {"clip/low": below, "clip/high": above}


@part
class PPOClip(Surrogate):
    r"""The pessimistic clipped surrogate.

    .. math:: \max\big(-r A,\; -\mathrm{clip}(r, 1-\epsilon_{low}, 1+\epsilon_{high})\,A\big)

    The gradient is zero exactly where (A > 0 and r > 1 + high) or (A < 0 and r < 1 - low); elsewhere it is -A r.
    Source: PPO, arXiv:1707.06347, eq. 7; two bounds: DAPO, arXiv:2503.14476, eq. 10.
    """

    low: NonNegative | None = 0.2
    """How far below 1 a ratio may fall before a bad token stops being pushed down; None for no lower bound."""
    high: NonNegative | None = 0.2
    """How far above 1 a ratio may rise before a good token stops being pushed up; None for no upper bound."""

    def __call__(self, log_ratio: Tensor, batch: Batch) -> Tensor:
        ratio = log_ratio.exp()
        clipped = clip_ratio(ratio, self.low, self.high)
        return torch.maximum(-ratio * batch.advantage, -clipped * batch.advantage)

    def metrics(self, log_ratio: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        return clip_metrics(log_ratio, batch, self.low, self.high)


@part
class RatioTimesAdvantage(Surrogate):
    r"""The unclipped importance-weighted surrogate :math:`-r A` (conservative policy iteration; arXiv:1707.06347, eq.
    6)."""

    def __call__(self, log_ratio: Tensor, batch: Batch) -> Tensor:
        return -log_ratio.exp() * batch.advantage


@part
class LogProb(Surrogate):
    r"""The score-function surrogate :math:`-A \log\pi_\theta(y_{i,t})`.

    Reads no ratio: off-policy it is biased unless a ``weight`` corrects it. Source: REINFORCE, Williams 1992.
    """

    def __call__(self, log_ratio: Tensor, batch: Batch) -> Tensor:
        return -batch.advantage * batch.logp
