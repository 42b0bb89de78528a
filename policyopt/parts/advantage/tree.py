"""Credit in trees of responses."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from policyopt.groups import group_mean, group_rank, group_std, group_sum, whiten
from policyopt.part import Advantage, Count, NonNegative, Unit, part
from policyopt.parts.select.tokens import Selector
from policyopt.rows import Batch

FLAT = 1e-6
"""Advantages up to this size are taken for 0: the float noise of equal rewards."""


def lineage(batch: Batch) -> Tensor:
    """[N, D + 1] the nodes of each row, the root first, numbered over the whole batch; a row's last node is repeated
    where it passes no more."""
    n = len(batch.mask)
    row = torch.arange(n, device=batch.mask.device)
    node = torch.zeros_like(row)[:, None] if batch.node is None else batch.node
    alone = node.amax(-1, keepdim=True) == 0  # no tree: a node that is the row's own
    node = torch.where(alone, int(node.max()) + 1 + row[:, None] if n else node, node)
    last = (depth(batch) - 1).clamp(min=0)
    place = torch.arange(node.shape[1], device=node.device).expand_as(node)
    node = node.gather(1, torch.minimum(place, last[:, None]))
    group = batch.group.long()
    pairs = torch.stack([group[:, None].expand_as(node), node], -1).reshape(-1, 2)
    numbers = torch.unique(pairs, dim=0, return_inverse=True)[1].reshape(node.shape)
    return torch.cat([torch.unique(group, return_inverse=True)[1][:, None], numbers], 1)


def depth(batch: Batch) -> Tensor:
    """[N] how many nodes each row passes below the root."""
    if batch.node is None:
        return torch.ones(len(batch.mask), dtype=torch.long, device=batch.mask.device)
    return (batch.node > 0).sum(-1).clamp(min=1)


def edge_of(batch: Batch) -> Tensor:
    """[N, T] which node of its row each token belongs to, from 0."""
    if batch.node is None:
        return torch.zeros_like(batch.mask, dtype=torch.long)
    position = torch.arange(batch.mask.shape[1], device=batch.mask.device)
    ends = torch.where(batch.node > 0, batch.node_end, batch.mask.shape[1])
    passed = (position[:, None] >= ends[:, None, :].long()).sum(-1)
    return torch.minimum(passed, depth(batch)[:, None] - 1)


def node_means(x: Tensor, way: Tensor) -> Tensor:
    """[N, D] the mean of ``x`` [N], or of each column of ``x`` [N, D], over the rows that pass each node of ``way``
    [N, D]."""
    columns = x[:, None].expand(way.shape) if x.dim() == 1 else x
    return torch.stack([group_mean(*pair) for pair in zip(columns.unbind(1), way.unbind(1), strict=True)], 1)


def sharing(way: Tensor) -> Tensor:
    """[N, D] how many rows pass each node of ``way`` [N, D]."""
    one = torch.ones(len(way), dtype=torch.float64, device=way.device)
    return torch.stack([group_sum(one, node) for node in way.unbind(1)], 1)


def on_tokens(x: Tensor, batch: Batch) -> Tensor:
    """[N, T] numbers of the nodes below the root, ``x`` [N, D], on the tokens that lead to each."""
    return x.gather(1, edge_of(batch)) * batch.mask


def in_turn(batch: Batch, live: Tensor, most: int) -> Tensor:
    """[N, T] the tokens of the edges whose turn it is: of each prompt's edges with ``live`` tokens [N, T], ``most`` at
    each step that its rows are in the batch, drawn without replacement.

    Which they are follows from the random numbers that came with the tokens, whatever else is in the batch.
    """
    edge, way = edge_of(batch), lineage(batch)
    real = torch.arange(way.shape[1] - 1, device=edge.device) < depth(batch)[:, None]
    begin = torch.zeros_like(way[:, 1:])
    if batch.node is not None:
        begin[:, 1:] = batch.node_end[:, :-1].clamp(max=edge.shape[1] - 1)
    there = torch.zeros_like(real, dtype=live.dtype).scatter_reduce(1, edge, live, "amax")
    nodes, index = torch.unique(way[:, 1:][real], return_inverse=True)
    count = torch.zeros(len(nodes), dtype=torch.float64, device=edge.device)
    # the sum of several uniform numbers, modulo 1, is uniform: all rows of an edge have a say, in any order
    turn = count.index_add(0, index, batch.noise.double().gather(1, begin)[real]) % 1
    alive = count.index_add(0, index, there[real].double()) > 0
    prompt = torch.zeros_like(nodes).index_copy(0, index, way[:, :1].expand_as(real)[real])
    age = torch.zeros_like(way[:, 0]) if batch.age is None else batch.age.long()
    due = torch.zeros_like(nodes).index_copy(0, index, age[:, None].expand_as(real)[real])
    mine = alive & (group_rank(torch.where(alive, turn, torch.inf), prompt) // most == due)
    taken = torch.zeros_like(real).masked_scatter(real, mine[index])
    return taken.gather(1, edge)


Over = Literal["leaves", "children", "continuations"]


def node_values(batch: Batch, over: Over = "leaves") -> Tensor:
    r"""[N, D + 1] what the nodes of each row are worth, the root first and the leaf, repeated, last.

    .. math:: V(leaf) = R,\qquad V(n) = \mathrm{mean}_{leaves\ below\ n} R \quad\text{or}\quad \mathrm{mean}_{children\ c} V(c)

    ``continuations`` takes ``node_value``, the rewards of fresh responses from there, which no other row enters; the
    root is then worth what the first node is. A batch without that column is valued by its leaves.
    """
    reward = batch.total_reward()
    if over == "continuations" and batch.node_value is not None:
        inner = (batch.node > 0) & ~batch.node_value.isnan()
        value = torch.where(inner, batch.node_value, reward[:, None])
        return torch.cat([value[:, :1], value], 1)
    way = lineage(batch)
    if over != "children":
        return node_means(reward, way)
    value, weight, found = reward, torch.ones_like(reward), []
    for node, once in zip(reversed(way.unbind(1)), reversed(once_each(way, reward).unbind(1)), strict=True):
        value = group_mean(value, node, weight)
        found.append(value)
        weight = once
    return torch.stack(found[::-1], 1)


def once_each(way: Tensor, like: Tensor) -> Tensor:
    """[N, D] weights with which each node of ``way`` [N, D] counts once, however many rows pass it."""
    return (1 / sharing(way)).to(like)


@part
class EdgeAdvantage(Advantage):
    r"""What the tokens of an edge add: the worth of the node that they lead to, minus that of the node that they leave.

    .. math:: A_{i,t} = V(b_j) - V(b_{j-1}) \quad\text{or}\quad \frac{V(b_j) - V(b_{j-1})}{\mathrm{std}_0(\text{siblings}) + \epsilon}
              \qquad\text{for } t \text{ between nodes } j-1 \text{ and } j

    Along a row the first form adds up to its reward minus the worth of the root; without a tree it is
    :class:`~policyopt.parts.Normalise` with no scale, the reward minus the mean of the group. Sources: ROSE, arXiv:2601.05053 (leaves); SPO, arXiv:2505.23564, and AIFrameResearch/SPO
    (children, or fresh continuations).
    """

    values: Over = "leaves"
    """What the worth of a node is the mean of."""
    scale: Literal["none", "siblings"] = "none"
    """What it is divided by: nothing, or the standard deviation of the worth of the parent's children."""
    eps: NonNegative = 1e-8
    """Added to the standard deviation, and to the variance of the whitening."""
    only: Selector | None = None
    """The tokens that are credited; None for all."""
    whiten: bool = False
    """Mean 0 and variance 1 over the tokens that are credited."""
    per_prompt: Count | None = None
    """How many edges with an advantage are credited in one step, for each prompt, drawn without replacement; the others
    have their turn at the steps to come, as long as their batch is trained on again. None for all at once."""

    unit: ClassVar[Unit] = "batch"

    @property
    def needs(self) -> frozenset[str]:
        turns = frozenset() if self.per_prompt is None else frozenset({"noise"})
        return turns if self.only is None else turns | self.only.needs

    def edges(self, batch: Batch) -> Tensor:
        """[N, D] the advantage of each edge of each row."""
        value = node_values(batch, self.values)
        gain = value[:, 1:] - value[:, :-1]
        if self.scale == "none":
            return gain
        way = lineage(batch)
        levels = zip(*(x.unbind(1) for x in (value[:, 1:], way[:, :-1], once_each(way[:, 1:], gain))), strict=True)
        spread = [group_std(child, parent, 0, weight) for child, parent, weight in levels]
        return gain / (torch.stack(spread, 1) + self.eps)

    def __call__(self, batch: Batch) -> Tensor:
        advantage = on_tokens(self.edges(batch), batch)
        kept = batch.mask if self.only is None else self.only(batch).to(batch.mask)
        if self.per_prompt is not None:
            kept = kept * in_turn(batch, kept * (advantage.abs() > FLAT), self.per_prompt)
        if self.whiten:
            advantage = whiten(advantage, weight=kept, variance_eps=self.eps)
        return advantage * kept
