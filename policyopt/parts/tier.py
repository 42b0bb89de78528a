"""Tiers of difficulty: how much the easy, middling and hard prompts of a batch count."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from policyopt.batch import Batch, masked_mean
from policyopt.parts.advantage import group_mean, group_rank, group_sum
from policyopt.parts.base import NonNegative, Unit, Weight, part


@part
class TierWeight(Weight):
    r"""Weigh prompts as if a tier were drawn first, then a prompt in it: :math:`w_i = p_{k(i)}\,P / P_{k(i)}`.

    The P prompts of the mini-batch are put in the order of their entropy, the mean over the tokens sampled for them,
    and cut into three tiers of equal size, easy to hard; P_k of them are in tier k. Where a tier is empty the others
    share what is its. Source: RMT, arXiv:2509.24375, which draws the tokens to be predicted so; the thresholds between
    tiers are not given there. Our reading: equal thirds, and weights in the place of draws, which is the same in
    expectation and needs no entropy before sampling.
    """

    share: tuple[NonNegative, NonNegative, NonNegative] = (0.6, 0.3, 0.1)
    """p: weights of the easy, the middle and the hard tier; controllers may move them."""

    unit: ClassVar[Unit] = "batch"

    def __call__(self, log_ratio: Tensor, batch: Batch) -> Tensor:
        tier = self.tiers(batch)
        one = 1 / group_sum(torch.ones_like(batch.mask[:, 0]), batch.group)  # each prompt counts once
        size = group_sum(one, tier)
        p = torch.tensor(self.share, dtype=one.dtype, device=one.device)[tier]
        there = (one * p / size).sum()  # the probability of the tiers that are not empty
        weight = p * one.sum() / (size * there.clamp(min=torch.finfo(one.dtype).tiny))
        return weight[:, None].expand_as(log_ratio)

    def tiers(self, batch: Batch) -> Tensor:
        """The tier of each row's prompt, [N]: 0 easy, 1 middle, 2 hard."""
        entropy = group_mean(masked_mean(batch.sampled_entropy, batch.mask, dim=-1), batch.group)
        prompts, index = torch.unique(batch.group, return_inverse=True)
        value = torch.zeros(len(prompts), dtype=entropy.dtype, device=entropy.device).scatter(0, index, entropy)
        rank = group_rank(value, torch.zeros_like(prompts))
        return (rank * len(self.share) // max(1, len(prompts)))[index]
