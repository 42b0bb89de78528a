"""Rows of an auxiliary program that take the place of those of the main one."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from policyopt.batch import Batch
from policyopt.parts.advantage import Normalise, group_sum
from policyopt.parts.base import Filter, Unit, part


@part
class PerSource(Normalise):
    """The usual advantage, where the responses to a prompt that one program drew are a group of their own."""

    def __call__(self, batch: Batch) -> Tensor:
        if batch.source is None or not len(batch.source):
            return super().__call__(batch)
        sources = int(batch.source.max()) + 1
        return super().__call__(batch.replace(group=batch.group * sources + batch.source.long()))


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
