"""Numbers of rows over the groups that they belong to."""

from __future__ import annotations

import torch
from torch import Tensor

from policyopt.rows import Batch


def group_sum(x: Tensor, group: Tensor) -> Tensor:
    """Sum of ``x`` [N] over the rows of the same group, given back to every row, [N]."""
    groups, index = torch.unique(group, return_inverse=True)
    return torch.zeros(len(groups), dtype=x.dtype, device=x.device).index_add(0, index, x)[index]


def group_max(x: Tensor, group: Tensor) -> Tensor:
    """Largest ``x`` [N] of the rows of the same group, given back to every row, [N]."""
    _, index = torch.unique(group, return_inverse=True)
    return torch.full_like(x, -torch.inf).scatter_reduce(0, index, x, "amax")[index]


def group_mean(x: Tensor, group: Tensor) -> Tensor:
    """Mean of ``x`` [N] over the rows of the same group, given back to every row, [N]; exactly x where all are
    equal."""
    low = -group_max(-x, group)
    return low + group_sum(x - low, group) / group_sum(torch.ones_like(x), group)


def by_source(batch: Batch) -> Tensor:
    """[N] the group of each row where what each origin drew for a prompt is a group of its own."""
    if batch.origin is None or not len(batch.origin):
        return batch.group
    return batch.group * (int(batch.origin.max()) + 1) + batch.origin.to(batch.group)


def group_std(x: Tensor, group: Tensor, ddof: int) -> Tensor:
    """Standard deviation of ``x`` [N] over the rows of the same group, given back to every row, [N]; 0 for a row
    alone."""
    square = group_sum((x - group_mean(x, group)) ** 2, group)
    return (square / (group_sum(torch.ones_like(x), group) - ddof).clamp(min=1)).sqrt()


def group_rank(x: Tensor, group: Tensor) -> Tensor:
    """Rank of ``x`` [N] among the rows of the same group, [N]: 0 for the smallest; equal ones in the order of rows."""
    groups, index = torch.unique(group, return_inverse=True)
    rising = x.argsort(stable=True)
    order = rising[index[rising].argsort(stable=True)]
    start = torch.searchsorted(index[order], torch.arange(len(groups), device=index.device))
    rank = torch.empty_like(index)
    rank[order] = torch.arange(len(x), device=index.device) - start[index[order]]
    return rank


def moments(x: Tensor, weight: Tensor, ddof: int) -> tuple[Tensor, Tensor]:
    """Mean and variance of ``x``, each place counting ``weight`` times; 0 where nothing counts."""
    count = weight.sum()
    mean = (weight * x).sum() / count.clamp(min=1)
    return mean, (weight * (x - mean) ** 2).sum() / (count - ddof).clamp(min=1)
