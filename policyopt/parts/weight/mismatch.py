"""Weights for the mismatch of sampler and trainer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor

from policyopt.part import UNITS, Finite, NonNegative, Positive, Ratio, Unit, Weight, Wrapper, part
from policyopt.parts.ratio.token import TokenRatio
from policyopt.parts.regularizer.kl import kl_estimate
from policyopt.rows import BOUND, Batch, held, masked, masked_mean

Mode = Literal["token_truncate", "token_mask", "sequence_truncate", "sequence_mask", "geo_mask"]
SAMPLER = TokenRatio(of="old", to="sampler")
"""Trainer over sampler, at the weights that drew the batch."""


@part
class SamplerMismatch(Wrapper, Weight):
    r"""Trainer over sampler at the weights that drew the batch, or another ratio, truncated or masked.

    .. math:: d_{i,t} = \log\pi_{old}(y_{i,t}) - \log\mu_{old}(y_{i,t}),\qquad w_{i,t} = e^{d_{i,t}}\quad\text{or}\quad e^{\sum_t d_{i,t}}

    pi_old is ``old_logp`` (the trainer's), mu_old ``rollout_logp`` (the sampler's); d is the logarithm of ``ratio``, which may be
    another one, such as proximal over old for rows that are several updates old. ``token_truncate`` and
    ``sequence_truncate`` clip w to [low, high]; ``token_mask`` and ``sequence_mask`` put 0 where it lies outside;
    ``geo_mask`` has the token's weights in the rows whose geometric mean lies inside, else 0. Silent tokens keep
    their share of the loss. With ``normalise`` the weights are over their mean, so that they add up to what they would without
    any. Both bounds are ratios. verl's ``rollout_is_threshold`` c is ``high`` = c without ``low``; one number c
    for its ``rollout_rs_threshold`` (``token_k1``, ``seq_sum_k1``, ``seq_mean_k1``) means the inverse too: ``low`` = 1/c,
    ``high`` = c. Sources: TIS (fengyao.notion.site/off-policy-rl, 2025; token, truncate), IcePop
    (arXiv:2510.18855; token, mask), decoupled PPO (arXiv:2110.00641, arXiv:2505.24298; proximal over old), and verl and TRL
    for the others. Our reading of ``normalise``: the mean runs over the mini-batch, over all of its tokens or, where responses
    have one weight, over its responses; verl's ``rollout_is_batch_normalize`` takes the whole batch.
    """

    mode: Mode = "token_truncate"
    """What is bounded, and what happens outside."""
    low: NonNegative | None = None
    """Smallest weight; None for no bound."""
    high: Positive | None = 2.0
    """Largest weight; None for no bound but e^20, beyond which numbers overflow."""
    normalise: bool = False
    """Divide the weights by their mean."""
    ratio: Ratio = SAMPLER
    """The ratio of single tokens that is the weight."""

    around: ClassVar[str] = "ratio"

    @property
    def unit(self) -> Unit:
        """That of the ratio, the row where its whole response decides, or the batch that weights are normalised over."""
        own: Unit = "batch" if self.normalise else "token" if self.mode.startswith("token") else "row"
        return max(own, self.ratio.unit, key=UNITS.index)

    def __call__(self, log_ratio: Tensor, batch: Batch) -> Tensor:
        token, judged = self.gap(batch)
        low, high = self._limits()
        if self.mode.endswith("truncate"):
            weight = judged.clamp(low, min(high, BOUND)).exp()
        else:
            weight = torch.where(self._outside(judged), 0.0, held(token if self.mode == "geo_mask" else judged).exp())
        return weight / self._mean(weight, batch.mask) if self.normalise else weight

    def _mean(self, weight: Tensor, mask: Tensor) -> Tensor:
        """Over tokens, or over responses where they have one weight each; 1 where nothing is left."""
        if self.mode.startswith("sequence"):
            weight, mask = masked_mean(weight, mask, dim=-1), (mask.sum(-1) > 0).to(mask)
        mean = masked_mean(weight, mask)
        return torch.where(mean > 1e-8, mean, 1.0)

    def gap(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """d of each token, and the logarithm of what is held to the bounds; both [N, T], 0 on padding."""
        token = masked(self.ratio(batch).detach(), batch.mask)
        if self.mode.startswith("token"):
            return token, token
        total = token.sum(-1, keepdim=True)
        if self.mode == "geo_mask":
            total = total / batch.mask.sum(-1, keepdim=True).clamp(min=1)
        return token, total.expand_as(token)

    def metrics(self, log_ratio: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        token, judged = self.gap(batch)
        weight, outside = self(log_ratio, batch), self._outside(judged).to(token)
        if self.ratio == SAMPLER:
            return {"sampler/k1": -token, "sampler/weight": weight, "sampler/outside": outside}
        return {"behind/k1": -token, "behind/weight": weight, "behind/outside": outside}

    def _limits(self) -> tuple[float, float]:
        low = math.log(self.low) if self.low else -math.inf
        return low, math.inf if self.high is None else math.log(self.high)

    def _outside(self, judged: Tensor) -> Tensor:
        low, high = self._limits()
        return (judged < low) | (judged > high)


@part
class Rejection(Wrapper, Weight):
    r"""A mask by how far two policies are apart at a token or on a response: 0 where that lies outside the bounds.

    .. math:: w_{i,t} = 1[low \le D_{i,t} \le high],\qquad D_{i,t} = k_{i,t},\ \textstyle\sum_s k_{i,s},\ \frac{1}{|y_i|}\sum_s k_{i,s}
              \text{ or } \max_s k_{i,s}

    k estimates what drew the tokens against what is trained, in nats: with d the logarithm of ``ratio`` (trainer over sampler, as
    it stands) k1 is -d, k2 is :math:`d^2/2`, k3 is :math:`e^d - 1 - d`; k2 and k3 are never negative. Masked tokens keep their share
    of the loss. Sources: verl's ``rollout_rs`` (:math:`d` held to 20, as here), where bounds of k1 are ratios, so that ``0.5_2`` is ``low`` =
    log 0.5, ``high`` = log 2, and where a rejected token leaves the divisor too; AReaL's ``rejection_sampling`` with ``action: mask``, whose k1 is d.
    """

    estimator: Literal["k1", "k2", "k3"] = "k3"
    """k."""
    over: Literal["token", "sum", "mean", "max"] = "mean"
    """What is held to the bounds: the estimate at each token, or the sum, the mean or the largest of a response."""
    low: Finite | None = None
    """Smallest D, in nats; None for no bound."""
    high: Finite | None = 0.1
    """Largest D, in nats; None for no bound."""
    ratio: Ratio = SAMPLER
    """The ratio of single tokens that is judged."""

    around: ClassVar[str] = "ratio"

    @property
    def unit(self) -> Unit:
        """The token, or the row where its whole response decides; more where the ratio needs it."""
        return max("token" if self.over == "token" else "row", self.ratio.unit, key=UNITS.index)

    def divergence(self, batch: Batch) -> Tensor:
        """D, [N, T]."""
        d = held(masked(self.ratio(batch).detach(), batch.mask))
        k = masked(kl_estimate(torch.zeros_like(d), d, self.estimator), batch.mask)
        if self.over == "token":
            return k
        if self.over == "max":
            most = torch.where(batch.mask.bool(), k, -math.inf).amax(-1, keepdim=True)
            return torch.where(most.isinf(), 0.0, most).expand_as(k)
        whole = k.sum(-1, keepdim=True)
        return (whole if self.over == "sum" else whole / batch.mask.sum(-1, keepdim=True).clamp(min=1)).expand_as(k)

    def __call__(self, log_ratio: Tensor, batch: Batch) -> Tensor:
        d = self.divergence(batch)
        low, high = -math.inf if self.low is None else self.low, math.inf if self.high is None else self.high
        return ((d >= low) & (d <= high)).to(log_ratio)

    def metrics(self, log_ratio: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        return {"rejection/divergence": self.divergence(batch), "rejection/masked": 1 - self(log_ratio, batch)}
