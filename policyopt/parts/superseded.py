"""Rows that others have taken the place of."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from policyopt.batch import Batch
from policyopt.parts.advantage import group_sum
from policyopt.parts.base import Filter, Unit, part


@part
class Superseded(Filter):
    """Where a prompt has rows of an auxiliary program, only these are trained on.

    Source: Guide, arXiv:2506.13923 (guided rows in the place of plain ones that all failed).
    """

    unit: ClassVar[Unit] = "group"

    def __call__(self, batch: Batch) -> Tensor:
        if batch.source is None:
            return torch.ones_like(batch.group, dtype=torch.bool)
        auxiliary = (batch.source > 0).to(batch.mask)
        return (auxiliary > 0) | (group_sum(auxiliary, batch.group) == 0)
