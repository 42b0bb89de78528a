"""Rows told apart by the program that drew them: main ones, and those of auxiliary programs beside them."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from policyopt.batch import Batch
from policyopt.parts.advantage import Normalise, by_source, group_sum
from policyopt.parts.base import Advantage, Filter, Unit, Wrapper, part


def main_rows(batch: Batch) -> Tensor:
    """Which rows the rollout's main program drew, boolean [N]."""
    if batch.source is None:
        return torch.ones(len(batch.mask), dtype=torch.bool, device=batch.mask.device)
    return torch.as_tensor(batch.source == 0)


def over_main_rows(f: Callable[[Batch], Tensor], batch: Batch) -> Tensor:
    """[N, T] a function of a batch on the rows of the main program alone, 0 on the others."""
    rows, out = main_rows(batch), torch.zeros_like(batch.mask)
    out[rows] = f(batch[rows])
    return out


@part
class BySource(Wrapper, Advantage):
    """An advantage within the rows of one source: what a prompt's different programs drew is not compared."""

    inner: Advantage = Normalise()
    """How the rows of one source are compared."""
    auxiliary: bool = True
    """Credit the rows of auxiliary programs too; otherwise they have an advantage of 0, and no statistic sees them."""

    def __call__(self, batch: Batch) -> Tensor:
        if not self.auxiliary:
            return over_main_rows(self.inner, batch)
        return self.inner(batch.replace(group=by_source(batch)))


@part
class Superseded(Filter):
    """Where a prompt has rows of an auxiliary program, only these are trained on.

    Source: Guide, arXiv:2506.13923 (guided rows in the place of plain ones that all failed).
    """

    unit: ClassVar[Unit] = "group"

    def __call__(self, batch: Batch) -> Tensor:
        auxiliary = ~main_rows(batch)
        return auxiliary | (group_sum(auxiliary.to(batch.mask), batch.group) == 0)
