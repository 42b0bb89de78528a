"""Weights for the mismatch of sampler and trainer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor

from policyopt.part import NonNegative, Positive, Unit, Weight, part
from policyopt.rows import BOUND, Batch, held, masked

Mode = Literal["token_truncate", "token_mask", "sequence_truncate", "sequence_mask", "geo_mask"]


@part
class SamplerMismatch(Weight):
    r"""Trainer over sampler at the weights that drew the batch, truncated or masked.

    .. math:: d_{i,t} = \log\pi_{old}(y_{i,t}) - \log\mu_{old}(y_{i,t}),\qquad w_{i,t} = e^{d_{i,t}}\quad\text{or}\quad e^{\sum_t d_{i,t}}

    pi_old is ``old_logp`` (the trainer's), mu_old ``rollout_logp`` (the sampler's). ``token_truncate`` and
    ``sequence_truncate`` clip w to [low, high]; ``token_mask`` and ``sequence_mask`` put 0 where it lies outside;
    ``geo_mask`` has the token's weights in the rows whose geometric mean lies inside, else 0. Silent tokens keep
    their share of the loss. Both bounds are ratios. verl's ``rollout_is_threshold`` c is ``high`` = c without ``low``; one number c
    for its ``rollout_rs_threshold`` (``token_k1``, ``seq_sum_k1``, ``seq_mean_k1``) means the inverse too: ``low`` = 1/c,
    ``high`` = c. Sources: TIS (fengyao.notion.site/off-policy-rl, 2025; token, truncate), IcePop
    (arXiv:2510.18855; token, mask), and verl and TRL for the others.
    """

    mode: Mode = "token_truncate"
    """What is bounded, and what happens outside."""
    low: NonNegative | None = None
    """Smallest weight; None for no bound."""
    high: Positive | None = 2.0
    """Largest weight; None for no bound but e^20, beyond which numbers overflow."""

    needs: ClassVar[frozenset[str]] = frozenset({"rollout_logp"})

    @property
    def unit(self) -> Unit:
        """The token, or the row where its whole response decides."""
        return "token" if self.mode.startswith("token") else "row"

    def __call__(self, log_ratio: Tensor, batch: Batch) -> Tensor:
        token, judged = self.gap(batch)
        low, high = self._limits()
        if self.mode.endswith("truncate"):
            return judged.clamp(low, min(high, BOUND)).exp()
        return torch.where(self._outside(judged), 0.0, held(token if self.mode == "geo_mask" else judged).exp())

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
