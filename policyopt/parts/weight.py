"""Weights: detached factors on the surrogate of each token, [N, T]."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from policyopt.batch import Batch
from policyopt.parts.base import NonNegative, Weight, part
from policyopt.parts.surrogate import clip_metrics, clip_ratio


@part
class TruncatedRatio(Weight):
    r"""The importance ratio, clipped and detached: it corrects the distribution but never silences a token.

    .. math:: w_{i,t} = sg\big[\mathrm{clip}(r_{i,t}, 1-\epsilon_{low}, 1+\epsilon_{high})\big]

    Source: CISPO, MiniMax-M1, arXiv:2506.13585, eq. 4-5 (as in verl and open-instruct, ``high`` is relative to 1).
    """

    low: NonNegative | None = None
    """Distance of the lower bound from 1; None for no lower bound."""
    high: NonNegative | None = 0.2
    """Distance of the upper bound from 1; None for no upper bound."""

    def __call__(self, log_ratio: Tensor, batch: Batch) -> Tensor:
        return clip_ratio(log_ratio.detach().exp(), self.low, self.high)

    def metrics(self, log_ratio: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        return clip_metrics(log_ratio, batch, self.low, self.high)
