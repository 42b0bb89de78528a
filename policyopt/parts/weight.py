"""Weights: detached factors on the surrogate of each token, [N, T]."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from policyopt.batch import Batch, masked
from policyopt.parts.base import Fraction, NonNegative, Positive, Unit, Weight, part
from policyopt.parts.bounds import Bounded, EntropyBounds, clip_metrics
from policyopt.parts.ratio import by_position


@part
class TruncatedRatio(Bounded, Weight):  # type: ignore[override]
    r"""The importance ratio, clipped and detached: it corrects the distribution but never silences a token.

    .. math:: w_{i,t} = sg\big[\mathrm{clip}(r_{i,t}, 1-\epsilon_{low}, 1+\epsilon_{high})\big]

    Source: CISPO, MiniMax-M1, arXiv:2506.13585, eq. 4-5 (as in verl and open-instruct, ``high`` is relative to 1).
    """

    low: NonNegative | None = None
    """Distance of the lower bound from 1; None for no lower bound."""
    high: NonNegative | None = 0.2
    """Distance of the upper bound from 1; None for no upper bound."""

    def __call__(self, log_ratio: Tensor, batch: Batch) -> Tensor:
        return log_ratio.detach().exp().clamp(*self.window(log_ratio, batch))


@part
class ClipMask(Bounded, Weight):  # type: ignore[override]
    r"""PPO's clip as a mask: 0 where the minimum would silence a token, 1 elsewhere.

    .. math:: M_{i,t} = 1 - [A > 0 \wedge r > 1+\epsilon_{high}] - [A < 0 \wedge r < 1-\epsilon_{low}]

    On the unclipped surrogate it leaves PPO's gradient, but not the value of silent tokens. ``two`` sides mask every
    ratio outside the bounds; a ``ring`` lets those through again that are far out and that the update pulls back: good
    tokens at or below :math:`1 - \epsilon'_{low}`, bad ones at or above :math:`1 + \epsilon'_{high}`. Sources: MiniRL,
    arXiv:2512.01374 (one); REC, arXiv:2509.24203, and the authors' code (modelscope/Trinity-RFT).
    """

    sides: Literal["one", "two", "ring"] = "one"
    """Which ratios are masked."""
    ring_low: NonNegative = 0.6
    """The outer lower distance from 1, of a ring."""
    ring_high: NonNegative = 2.0
    """The outer upper distance from 1, of a ring."""

    def __call__(self, log_ratio: Tensor, batch: Batch) -> Tensor:
        ratio, advantage = log_ratio.exp(), batch.advantage
        low, high = self.window(log_ratio, batch)
        if self.sides == "one":
            beyond = clip_metrics(ratio, advantage, low, high)
            return 1 - beyond["clip/low"] - beyond["clip/high"]
        keep = (ratio >= low) & (ratio <= high)
        if self.sides == "ring":
            keep |= (advantage >= 0) & (ratio <= 1 - self.ring_low)
            keep |= (advantage <= 0) & (ratio >= 1 + self.ring_high)
        return keep.to(ratio)


@part
class AdvantageWeight(Weight):
    r"""More of what is good: :math:`w_{i,t} = e^{A_{i,t}/T}`. Source: RED-Weight, arXiv:2509.24203."""

    temperature: Positive = 1.0
    """T; without bound there is no weighting."""

    def __call__(self, log_ratio: Tensor, batch: Batch) -> Tensor:
        return (batch.advantage / self.temperature).exp()


Mode = Literal["token_truncate", "token_mask", "sequence_truncate", "sequence_mask", "geo_mask"]


@part
class SamplerMismatch(Weight):
    r"""Trainer over sampler at the weights that drew the batch, truncated or masked.

    .. math:: d_{i,t} = \log\pi_{old}(y_{i,t}) - \log\mu_{old}(y_{i,t}),\qquad w_{i,t} = e^{d_{i,t}}\quad\text{or}\quad e^{\sum_t d_{i,t}}

    pi_old is ``old_logp`` (the trainer's), mu_old ``rollout_logp`` (the sampler's). ``token_truncate`` and
    ``sequence_truncate`` clip w to [low, high]; ``token_mask`` and ``sequence_mask`` put 0 where it lies outside;
    ``geo_mask`` has the token's weights in the rows whose geometric mean lies inside, else 0. Silent tokens keep
    their share of the loss. Sources: TIS (fengyao.notion.site/off-policy-rl, 2025; token, truncate), IcePop
    (arXiv:2510.18855; token, mask), and verl and TRL for the others.
    """

    mode: Mode = "token_truncate"
    """What is bounded, and what happens outside."""
    low: NonNegative | None = None
    """Smallest weight; None for no bound."""
    high: Positive | None = 2.0
    """Largest weight; None for no bound."""

    needs: ClassVar[frozenset[str]] = frozenset({"rollout_logp"})

    @property
    def unit(self) -> Unit:  # type: ignore[override]
        """The token, or the row where its whole response decides."""
        return "token" if self.mode.startswith("token") else "row"

    def __call__(self, log_ratio: Tensor, batch: Batch) -> Tensor:
        token, judged = self.gap(batch)
        low, high = self._limits()
        if self.mode.endswith("truncate"):
            return judged.clamp(low, high).exp()
        return torch.where(self._outside(judged), 0.0, (token if self.mode == "geo_mask" else judged).exp())

    def gap(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """d of each token, and the logarithm of what is held to the bounds; both [N, T], 0 on padding."""
        token = masked(batch.old_logp - batch.rollout_logp, batch.mask)
        if self.mode.startswith("token"):
            return token, token
        total = token.sum(-1, keepdim=True)
        if self.mode == "geo_mask":
            total = total / batch.mask.sum(-1, keepdim=True).clamp(min=1)
        return token, total.expand_as(token)

    def metrics(self, log_ratio: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        token, judged = self.gap(batch)
        return {
            "sampler/k1": -token,
            "sampler/weight": self(log_ratio, batch),
            "sampler/outside": self._outside(judged).to(token),
        }

    def _limits(self) -> tuple[float, float]:
        low = math.log(self.low) if self.low else -math.inf
        return low, math.inf if self.high is None else math.log(self.high)

    def _outside(self, judged: Tensor) -> Tensor:
        low, high = self._limits()
        return (judged < low) | (judged > high)


@part
class EntropyRedistribution(Bounded, Weight):  # type: ignore[override]
    r"""Strengthen uncertain tokens that have moved, mute confident ones that have not.

    .. math:: w_{i,t} = 1 + \beta\hat h_{i,t}\ \text{ where }\ (\hat h > 0) \ne \text{neutral},\quad 1 \text{ elsewhere},\qquad
              \text{neutral}:\ \tfrac{1 + lo}{2} < r < \tfrac{1 + hi}{2}

    h is :func:`~policyopt.parts.bounds.entropy_scale`, lo and hi the bounds of the token. The loss of a clipped
    surrogate is proportional to the advantage, so the factor on one is the factor on the other. Source: HAPO,
    arXiv:2509.16591, and the authors' code (starriver030515/HAPO).
    """

    bounds: EntropyBounds = EntropyBounds()
    """The bounds of the surrogate."""
    beta: Fraction = 1.0
    """How much; at 1 the most confident token of the batch may lose all of its weight."""

    def __call__(self, log_ratio: Tensor, batch: Batch) -> Tensor:
        low, high = self.window(log_ratio, batch)
        ratio, h = log_ratio.detach().exp(), self.bounds.scale(batch)
        neutral = ((1 + low) / 2 < ratio) & (ratio < (1 + high) / 2)
        return torch.where((h > 0) ^ neutral, 1 + self.beta * h, 1.0)

    def metrics(self, log_ratio: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        return {"entropy/factor": self(log_ratio, batch)}


@part
class PositionWeight(Weight):
    """A constant factor for each position of a response. Source: GRPO-Guard, arXiv:2510.22319 (one over the length of
    the denoising step)."""

    weights: Annotated[tuple[Positive, ...], Field(min_length=1)] = (1.0,)
    """Factors from the first position on; the last one stands for all positions after it."""

    def __call__(self, log_ratio: Tensor, batch: Batch) -> Tensor:
        return by_position(self.weights, log_ratio)
