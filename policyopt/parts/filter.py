"""Filters: which rows are trained on, boolean [N]."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from policyopt.batch import Batch
from policyopt.parts.advantage import group_sum
from policyopt.parts.base import Filter, Unit, part


@part
class MixedOutcomes(Filter):
    """Keep prompts that were answered both right and wrong: the others have no gradient (DAPO, arXiv:2503.14476, eq.
    11).

    It looks at correctness, not at the shaped reward: a prompt whose answers are all right is dropped even where
    length penalties differ.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"correct"})
    unit: ClassVar[Unit] = "group"
    min_group: ClassVar[int] = 2

    def __call__(self, batch: Batch) -> Tensor:
        right = group_sum(batch.correct, batch.group)
        return (right > 0) & (right < group_sum(torch.ones_like(batch.correct), batch.group))


@part
class NotTruncated(Filter):
    """Leave out responses that were cut off at the budget (overlong filtering; DAPO, arXiv:2503.14476, section 3.4)."""

    def __call__(self, batch: Batch) -> Tensor:
        return batch.truncated < 0.5
