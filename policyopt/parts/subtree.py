"""Credit that a response has from the trees that it is part of."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from policyopt.batch import Batch, masked_mean
from policyopt.parts.advantage import Normalise, moments
from policyopt.parts.base import Advantage, NonNegative, Unit, part
from policyopt.parts.tree import edge_of, lineage, node_mean, node_values, sharing


@part
class SubtreeAdvantage(Advantage):
    r"""The mean advantage of a response over the nested trees that it belongs to, whitened over the tokens of the batch.

    .. math:: \tilde A_i = \frac{\sum_d w_{i,d}\,(R_i - \mathrm{mean}_{j \in S_d(i)} R_j)}{\sum_d w_{i,d}},\qquad
              A_{i,t} = (\tilde A_i - \mu) / \sqrt{\sigma^2 + \epsilon}

    S_d(i) holds the leaves that share the first d nodes of row i, S_0 all of the prompt; d ends before the leaf. A tree
    that the row is alone in is left out, but for S_0. w is 1, or the size of S_d. Without a tree it is the reward minus
    the mean of the group, whitened. Source: TreePO, arXiv:2508.17445, and the authors' code
    (multimodal-art-projection/TreePO).
    """

    weight: Literal["average", "size"] = "average"
    """How the trees of a row count."""
    drop_flat: bool = False
    """Leave out trees below the root whose leaves have equal rewards too."""
    eps: NonNegative = 1e-8
    """Added to the variance."""

    unit: ClassVar[Unit] = "batch"

    def terms(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The advantages of each row in its trees, [N, D], and their weights, 0 where one is left out."""
        way, reward = lineage(batch)[:, :-1], batch.total_reward()
        size = torch.stack([sharing(level) for level in way.unbind(1)], 1).to(reward)
        gain = reward[:, None] - node_values(batch)[:, :-1]
        alone = size == 1
        if self.drop_flat:
            spread = [node_mean(gain[:, d].abs(), torch.ones_like(reward), way[:, d]) for d in range(way.shape[1])]
            alone = alone | (torch.stack(spread, 1) == 0)
        alone[:, 0] = False
        weight = size if self.weight == "size" else torch.ones_like(size)
        return gain, torch.where(alone, 0.0, weight)

    def raw(self, batch: Batch) -> Tensor:
        """A-tilde, [N]."""
        gain, weight = self.terms(batch)
        return (gain * weight).sum(-1) / weight.sum(-1)

    def __call__(self, batch: Batch) -> Tensor:
        advantage = self.raw(batch)[:, None].expand_as(batch.mask)
        mean, variance = moments(advantage, batch.mask, 1)
        return (advantage - mean) / (variance + self.eps).sqrt() * batch.mask


@part
class SharedAdvantage(Advantage):
    r"""Tokens that several responses share have the mean of what these are credited with.

    .. math:: A_{i,t} = \frac1d \sum_{j \ni node(i,t)} A_j

    A_j is the response's own advantage, d the number of responses that pass the node. Source: ARPO, arXiv:2507.19849
    (the hard form).
    """

    own: Normalise = Normalise()
    """The advantage of a response by itself, the same on all of its tokens."""

    unit: ClassVar[Unit] = "batch"

    def __post_init__(self) -> None:
        if self.own.gamma is not None:
            raise ValueError("own.gamma is set, but what is shared is one number for each response: set it to None")

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        return self.own.needs

    @property
    def min_group(self) -> int:  # type: ignore[override]
        return self.own.min_group

    def __call__(self, batch: Batch) -> Tensor:
        row = masked_mean(self.own(batch), batch.mask, dim=-1)
        shared = [node_mean(row, torch.ones_like(row), level) for level in lineage(batch)[:, 1:].unbind(1)]
        return torch.stack(shared, 1).gather(1, edge_of(batch)) * batch.mask
