"""Which responses to one prompt are a pair, how far apart they should be, and how much a pair counts."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from policyopt.part import Finite, Part, Unit, part
from policyopt.parts.select.rows import RowSelector, picked
from policyopt.rows import Batch, masked

# Which are a pair ----------------------------------------------------------------------------------------------------


def row_credit(batch: Batch) -> Tensor:
    """The advantage of each response [N], exactly that of its last token; 0 for a response without tokens."""
    return masked(batch.advantage, batch.terminal()).sum(-1)


def first_best(x: Tensor, group: Tensor, among: Tensor) -> Tensor:
    """The row of the largest ``x`` [N] in each group, of the rows ``among`` [N] which are compared; the first of equal
    ones, and none for a group without any. Ordered by group."""
    order = torch.where(among, x, -math.inf).argsort(descending=True, stable=True)
    order = order[among[order]]
    _, index = group[order].unique(return_inverse=True)
    first = torch.full((int(index.max()) + 1 if len(index) else 0,), len(order), device=x.device)
    first = first.scatter_reduce(0, index, torch.arange(len(order), device=x.device), "amin")
    return order[first]


class PairSelector(Part):
    """Which responses to the same prompt are pairs: takes the credited batch, returns the row numbers of the better and of
    the worse one of each pair, [P] each. A response is as good as its advantage."""

    min_group: ClassVar[int] = 2

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        raise NotImplementedError


@part
class AllPairs(PairSelector):
    """Every two responses to the same prompt, of which one is better."""

    ties: bool = False
    """Two equal ones are a pair too, the first of them as the better one."""
    rows: RowSelector | None = None
    """Which rows can stand in a pair; None for all."""

    @property
    def needs(self) -> frozenset[str]:
        """What the selector of rows reads."""
        return self.rows.needs if self.rows else frozenset()

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        credit, row = row_credit(batch), torch.arange(len(batch.mask), device=batch.mask.device)
        there = picked(self.rows, batch) > 0
        first = credit[:, None] > credit
        if self.ties:
            first |= (credit[:, None] == credit) & (row[:, None] < row)
        first &= (batch.group[:, None] == batch.group) & there[:, None] & there
        better, worse = first.nonzero(as_tuple=True)
        return better, worse


@part
class BestWorst(PairSelector):
    """The best response to each prompt and the worst one, the first of equal ones; none where all are equal."""

    rows: RowSelector | None = None
    """Which rows can stand in a pair; None for all."""

    @property
    def needs(self) -> frozenset[str]:
        """What the selector of rows reads."""
        return self.rows.needs if self.rows else frozenset()

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        credit, there = row_credit(batch), picked(self.rows, batch) > 0
        better, worse = (first_best(x, batch.group, there) for x in (credit, -credit))
        apart = credit[better] > credit[worse]
        return better[apart], worse[apart]


@part
class Side(RowSelector):
    """The rows that stand in some pair as the better one, or as the worse one."""

    better: bool = True
    """Which of the two."""
    choose: PairSelector = AllPairs()
    """Which responses are pairs."""

    unit: ClassVar[Unit] = "group"

    @property
    def needs(self) -> frozenset[str]:
        """What the selector of pairs reads."""
        return self.choose.needs

    def __call__(self, batch: Batch) -> Tensor:
        better, worse = self.choose(batch)
        none = torch.zeros(len(batch.mask), dtype=torch.bool, device=batch.mask.device)
        return none.index_fill(0, better if self.better else worse, True)


@part
class BestResponse(RowSelector):
    """The response to each prompt with the highest reward, the first of equal ones."""

    unit: ClassVar[Unit] = "group"

    def __call__(self, batch: Batch) -> Tensor:
        reward = batch.total_reward()
        every = torch.ones_like(reward, dtype=torch.bool)
        return (~every).index_fill(0, first_best(reward, batch.group, every), True)


# How far apart, and how much -----------------------------------------------------------------------------------------


class Margin(Part):
    """By how much the score of the better response should exceed that of the worse one before the link sees a gain: takes
    the batch and the rows of the pairs, returns [P], in units of beta times the score."""

    def __call__(self, batch: Batch, better: Tensor, worse: Tensor) -> Tensor:
        raise NotImplementedError


@part
class FixedMargin(Margin):
    """The same for every pair."""

    size: Finite = 0.5
    """The margin."""

    def __call__(self, batch: Batch, better: Tensor, worse: Tensor) -> Tensor:
        return torch.full_like(batch.mask[better, 0], self.size)


class PairWeight(Part):
    """How much each pair counts: takes the batch and the rows of the pairs, returns [P]. No gradient passes it."""

    def __call__(self, batch: Batch, better: Tensor, worse: Tensor) -> Tensor:
        raise NotImplementedError
