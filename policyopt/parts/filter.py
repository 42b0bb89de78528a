"""Filters: which rows are trained on, boolean [N]."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from policyopt.batch import Batch
from policyopt.parts.advantage import by_source, group_mean
from policyopt.parts.base import Filter, Fraction, Unit, part


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


@part
class Credited(Filter):
    """Leave out responses without any advantage, which would cost a pass and teach nothing."""

    unit: ClassVar[Unit] = "row"

    def __call__(self, batch: Batch) -> Tensor:
        return ((batch.advantage != 0) & batch.mask.bool()).any(-1)


@part
class NotTruncated(Filter):
    """Leave out responses that were cut off at the budget (overlong filtering; DAPO, arXiv:2503.14476, section 3.4)."""

    def __call__(self, batch: Batch) -> Tensor:
        return batch.truncated < 0.5
