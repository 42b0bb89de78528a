"""Less credit for right answers that are longer than need be."""

from __future__ import annotations

import torch
from torch import Tensor

from policyopt.batch import Batch
from policyopt.parts.base import Finite, NonNegative, part
from policyopt.parts.tree import EdgeAdvantage, lineage


@part
class ShorterAdvantage(EdgeAdvantage):
    r"""The advantage of edges, lowered on right responses that are longer than the shortest right one, from where they
    left it.

    .. math:: A_{c,t} \leftarrow A_{c,t} - |A_{c,t}|\Big(1 - \big(\tfrac{|y_s| - b_c}{|y_c| - b_c}\big)^{\alpha}\Big),\qquad t > b_c

    s is the shortest right response to the prompt, b_c the number of tokens before the last node that c shares with it.
    Of several that are as short, c is held against the one nearest to it. Source: ROSE, arXiv:2601.05053, and the
    authors' code (ZiqiZhao1/ROSE-rl).
    """

    alpha: NonNegative = 1.0
    """How much; 0 leaves all as it is."""
    right: Finite = 0.5
    """A reward above it makes a response right."""

    def __call__(self, batch: Batch) -> Tensor:
        advantage = super().__call__(batch)
        if not len(advantage):
            return advantage
        right, length = batch.total_reward() > self.right, batch.length()
        peers = (batch.group[:, None] == batch.group) & right
        shortest = torch.where(peers, length, torch.inf).amin(-1)
        left = shared_length(batch, peers & (length == shortest[:, None]))
        position = torch.arange(advantage.shape[1], device=advantage.device)
        longer = (right & (length > shortest))[:, None] & (position >= left[:, None])
        rest = ((shortest - left).clamp(min=0) / (length - left).clamp(min=1))[:, None]
        return torch.where(longer, advantage - advantage.abs() * (1 - rest**self.alpha), advantage)


def shared_length(batch: Batch, others: Tensor) -> Tensor:
    """[N] how many tokens lie before the last node that each row shares with one of the rows that ``others`` [N, N]
    names for it; 0 where only the root is shared."""
    way = lineage(batch)[:, 1:]
    found = torch.zeros_like(batch.length())
    if batch.node is None:
        return found
    for node, end in zip(way.unbind(1), batch.node_end.unbind(1), strict=True):
        shared = ((node[:, None] == node) & others).any(-1)
        found = torch.where(shared, torch.maximum(found, end.to(found)), found)
    return found
