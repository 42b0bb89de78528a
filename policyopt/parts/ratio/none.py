"""No ratio."""

from __future__ import annotations

import torch
from torch import Tensor

from policyopt.part import Ratio, part
from policyopt.rows import Batch

# What stands in the slots of a recipe whose whole loss is a divergence -----------------------------------------------


@part
class NoRatio(Ratio):
    """The ratio 1, for losses that do not compare the policy with the one that wrote the tokens."""

    def __call__(self, batch: Batch) -> Tensor:
        return torch.zeros_like(batch.mask)
