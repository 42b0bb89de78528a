"""Filters on the outcomes of a group."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from policyopt.groups import by_source, group_mean
from policyopt.part import Filter, Fraction, Unit, part
from policyopt.rows import Batch


@part
class MixedOutcomes(Filter):
    """Keep prompts that were answered both right and wrong: the others have no gradient (DAPO, arXiv:2503.14476, eq.
    11).

    It looks at correctness, not at the shaped reward: a prompt whose answers are all right is dropped even where
    length penalties differ. The share of right answers must lie strictly between ``low`` and ``high`` (the window of
    DARS, arXiv:2508.13755). What an auxiliary program drew for a prompt can be looked at by itself (CLPO,
    arXiv:2509.25004: a question in other words).
    """

    low: Fraction = 0.0
    """Prompts with this accuracy or less are dropped."""
    high: Fraction = 1.0
    """Prompts with this accuracy or more are dropped."""
    per_source: bool = False
    """Whether the rows of each source are kept or dropped by themselves."""

    needs: ClassVar[frozenset[str]] = frozenset({"correct"})
    unit: ClassVar[Unit] = "group"
    min_group: ClassVar[int] = 2

    def __call__(self, batch: Batch) -> Tensor:
        accuracy = group_mean(batch.correct, by_source(batch) if self.per_source else batch.group)
        return (accuracy > self.low) & (accuracy < self.high)
