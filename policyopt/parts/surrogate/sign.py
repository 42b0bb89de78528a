"""What depends on the sign of the advantage."""

from __future__ import annotations

import torch
from torch import Tensor

BOUND = 20.0
"""Log-ratios are held to plus and minus this; beyond it a gate is shut to the last bit, and products would overflow."""


def choose(where: Tensor, yes: float, no: float, like: Tensor) -> Tensor:
    """One number where a condition holds and another elsewhere, in the dtype of ``like``."""
    return torch.where(where, like.new_tensor(yes), like.new_tensor(no))
