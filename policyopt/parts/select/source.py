"""Which rows came from where."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from policyopt.rows import Batch


def main_rows(batch: Batch) -> Tensor:
    """Which rows the rollout's main program drew, boolean [N]."""
    if batch.origin is None:
        return torch.ones(len(batch.mask), dtype=torch.bool, device=batch.mask.device)
    return torch.as_tensor(batch.origin == 0)


def over_main_rows(f: Callable[[Batch], Tensor], batch: Batch) -> Tensor:
    """[N, T] a function of a batch on the rows of the main program alone, 0 on the others."""
    rows, out = main_rows(batch), torch.zeros_like(batch.mask)
    out[rows] = f(batch[rows])
    return out
