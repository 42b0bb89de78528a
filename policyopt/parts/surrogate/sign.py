"""What depends on the sign of the advantage."""

from __future__ import annotations

import torch
from torch import Tensor


def choose(where: Tensor, yes: float, no: float, like: Tensor) -> Tensor:
    """One number where a condition holds and another elsewhere, in the dtype of ``like``."""
    return torch.where(where, like.new_tensor(yes), like.new_tensor(no))
