"""No surrogate."""

from __future__ import annotations

import torch
from torch import Tensor

from policyopt.part import Surrogate, part
from policyopt.rows import Batch


@part
class NoSurrogate(Surrogate):
    """No policy gradient: the regularisers are the whole loss."""

    def __call__(self, log_ratio: Tensor, batch: Batch) -> Tensor:
        return torch.zeros_like(log_ratio)
