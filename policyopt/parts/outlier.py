"""Advantages that look at tokens: outliers dropped, and statistics in which long responses weigh more."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from policyopt.batch import Batch, masked
from policyopt.parts.advantage import Normalise, group_mean, group_sum, moments
from policyopt.parts.base import Advantage, NonNegative, Positive, Unit, Wrapper, part


@part
class SigmaFilter(Wrapper, Advantage):
    r"""An advantage standardised over all tokens of the batch, with its outliers set to zero.

    .. math:: z = (A - \mu)/\sigma,\qquad A' = z\,[|z| \le k]

    Population standard deviation; what remains is not standardised again. Below 11 tokens nothing can lie beyond 3
    sigma. Source: StableReinforce, arXiv:2505.02835, section 3 (the authors' code compares z with the mean of A plus
    and minus 3).
    """

    of: Advantage = Normalise(centre="none", scale="none", gamma=1.0)
    """The advantage before it."""
    sigma: Positive = 3.0
    """k."""

    around: ClassVar[str] = "of"
    unit: ClassVar[Unit] = "batch"

    def __call__(self, batch: Batch) -> Tensor:
        return self.filtered(self.of(batch), batch.mask)

    def filtered(self, advantage: Tensor, mask: Tensor) -> Tensor:
        """A' of an advantage, both [N, T]."""
        advantage = masked(advantage, mask)
        mean, variance = moments(advantage, mask, ddof=0)
        z = (advantage - mean) / variance.clamp(min=1e-8).sqrt()
        return torch.where(z.abs() <= self.sigma, z, 0.0) * mask


@part
class TokenNormalise(Advantage):
    r"""GRPO's advantage with statistics in which every response counts as often as it has tokens.

    .. math:: A_i = \frac{R_i - \mu}{\sigma + \epsilon},\qquad
              \mu = \frac{\sum_j |y_j| R_j}{\sum_j |y_j|},\qquad \sigma^2 = \frac{\sum_j |y_j|(R_j-\mu)^2}{\sum_j |y_j|}

    The sums run over the responses to one prompt, so that the advantages of their tokens add up to zero. A group in
    which any A is as large as ``fallback`` takes GRPO's advantage instead. Source: HAPO, arXiv:2509.16591, and the
    authors' code (starriver030515/HAPO).
    """

    eps: NonNegative = 1e-6
    """Added to the standard deviation."""
    fallback: Positive | None = 5.0
    """Size of A at which the whole group falls back; None for never."""

    unit: ClassVar[Unit] = "group"
    min_group: ClassVar[int] = 2

    def __call__(self, batch: Batch) -> Tensor:
        reward, weight, group = batch.total_reward(), batch.mask.sum(-1), batch.group
        total = group_sum(weight, group).clamp(min=1)
        rough = group_mean(reward, group)  # sums of differences are exactly 0 where all rewards are equal
        gain = reward - rough - group_sum(weight * (reward - rough), group) / total
        advantage = gain / ((group_sum(weight * gain**2, group) / total).sqrt() + self.eps)
        large = torch.zeros_like(reward) if self.fallback is None else (advantage.abs() >= self.fallback).to(reward)
        plain = Normalise(centre="group", scale="group", eps=self.eps)(batch)
        return torch.where(group_sum(large, group)[:, None] > 0, plain, advantage[:, None] * batch.mask)
