"""Selectors of rows: which responses something is about."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from policyopt.part import Filter, Part, part
from policyopt.rows import Batch


class RowSelector(Filter):
    """Which rows: returns a boolean [N], without gradient. It stands inside other parts, and is a filter too."""

    def __call__(self, batch: Batch) -> Tensor:
        raise NotImplementedError


class RowWeight(Part):
    """How much each row counts: returns [N], without gradient. It stands inside other parts; a selector is one of 0 and 1."""

    def __call__(self, batch: Batch) -> Tensor:
        raise NotImplementedError


@part
class Judged(RowSelector):
    """The rows that the judge found right, or those that it found wrong."""

    right: bool = True
    """Which of the two."""

    needs: ClassVar[frozenset[str]] = frozenset({"correct"})

    def __call__(self, batch: Batch) -> Tensor:
        return (batch.correct > 0.5) == self.right


@part
class FromProgram(RowSelector):
    """The rows that the rollout's main program drew, or those of its auxiliary programs."""

    main: bool = True
    """Which of the two."""

    def __call__(self, batch: Batch) -> Tensor:
        return main_rows(batch) == self.main


def main_rows(batch: Batch) -> Tensor:
    """Which rows the rollout's main program drew, boolean [N]."""
    if batch.origin is None:
        return torch.ones(len(batch.mask), dtype=torch.bool, device=batch.mask.device)
    return torch.as_tensor(batch.origin == 0)


def picked(rows: RowSelector | RowWeight | None, batch: Batch) -> Tensor:
    """[N] how much each row counts: 1 on the rows that a selector picks, and on all of them where there is none."""
    every = torch.ones_like(batch.mask[:, 0])
    return every if rows is None else rows(batch).to(every)


def over_rows(f: Callable[[Batch], Tensor], rows: RowSelector | None, batch: Batch) -> Tensor:
    """[N, T] a function of a batch on the rows that a selector picks, as if there were no others; 0 on these."""
    if rows is None:
        return f(batch)
    chosen, out = rows(batch), torch.zeros_like(batch.mask)
    out[chosen] = f(batch[chosen])
    return out
