"""Numbers of rows over the groups that they belong to, and the one way in which anything is whitened.

``group`` is a number for each place, or ``None`` where all places are one group.
"""

from __future__ import annotations

import torch
from torch import Tensor

from policyopt.rows import Batch


def group_sum(x: Tensor, group: Tensor | None) -> Tensor:
    """Sum of ``x`` over the places of the same group, given back to every place."""
    if group is None:
        return x.sum().expand_as(x)
    index = _slots(group)
    return torch.zeros_like(x).index_add(0, index, x)[index]


def group_max(x: Tensor, group: Tensor | None) -> Tensor:
    """Largest ``x`` of the places of the same group, given back to every place."""
    if group is None:
        return x.amax().expand_as(x) if x.numel() else x
    index = _slots(group)
    return torch.full_like(x, -torch.inf).scatter_reduce(0, index, x, "amax")[index]


def group_mean(x: Tensor, group: Tensor | None, weight: Tensor | None = None) -> Tensor:
    """Mean of ``x`` over the places of the same group, each counting ``weight`` times, given back to every place.

    Exactly x where all are equal, so that what is centred by it is exactly 0 there; 0 where nothing counts. ``x`` may
    hold anything at places of weight 0.
    """
    weight = torch.ones_like(x) if weight is None else weight
    counts, total = weight > 0, group_sum(weight, group)
    low = -group_max(torch.where(counts, -x.detach(), -torch.inf), group)
    gain = torch.where(counts, x - low, 0.0)
    mean = low + group_sum(weight * gain, group) / torch.where(total > 0, total, 1.0)
    return torch.where(total > 0, mean, 0.0)


def group_variance(x: Tensor, group: Tensor | None, ddof: int, weight: Tensor | None = None) -> Tensor:
    """Variance of ``x`` over the places of the same group, each counting ``weight`` times, given back to every place; 0
    for a place alone.

    The sum of squares is over the number of what counts, less ``ddof``, but at least 1.
    """
    weight = torch.ones_like(x) if weight is None else weight
    gain = torch.where(weight > 0, x - group_mean(x, group, weight), 0.0)
    return group_sum(weight * gain**2, group) / (group_sum(weight, group) - ddof).clamp(min=1)


def group_std(x: Tensor, group: Tensor | None, ddof: int, weight: Tensor | None = None) -> Tensor:
    """The root of :func:`group_variance`."""
    return group_variance(x, group, ddof, weight).sqrt()


def whiten(
    x: Tensor,
    group: Tensor | None = None,
    weight: Tensor | None = None,
    *,
    ddof: int = 0,
    eps: float = 0.0,
    variance_eps: float = 0.0,
    least: float = 0.0,
) -> Tensor:
    r"""``x`` with mean 0 and variance 1 over the places of the same group.

    .. math:: \frac{x - \mu}{\sqrt{\max(\sigma^2 + \epsilon_v, v_{min})} + \epsilon}

    ``weight`` says how often each place counts in mu and sigma; what does not count is measured by those that do.
    ``eps`` is added to the standard deviation, ``variance_eps`` to the variance, and ``least`` is the smallest variance:
    the three ways in which papers keep the divisor from 0.
    """
    variance = group_variance(x, group, ddof, weight) + variance_eps
    return (x - group_mean(x, group, weight)) / (variance.clamp(min=least).sqrt() + eps)


def by_source(batch: Batch) -> Tensor:
    """[N] the group of each row where what each origin drew for a prompt is a group of its own."""
    if batch.origin is None or not len(batch.origin):
        return batch.group
    return batch.group * (int(batch.origin.max()) + 1) + batch.origin.to(batch.group)


def group_rank(x: Tensor, group: Tensor) -> Tensor:
    """Rank of ``x`` [N] among the rows of the same group, [N]: 0 for the smallest; equal ones in the order of rows."""
    index = _slots(group)
    rising = x.argsort(stable=True)
    order = rising[index[rising].argsort(stable=True)]
    rank = torch.empty_like(index)
    rank[order] = torch.arange(len(x), device=index.device) - index[order]
    return rank


def preferred(batch: Batch, scale: float = 0.0) -> Tensor:
    r"""P [N, N], the probability that the response of row i is better than that of row j: 1/2 where i is j, NaN between prompts.

    What a judge that compares said (``beats``); without one, what rewards make of it: :math:`\sigma((R_i - R_j) / \tau)` with tau =
    ``scale`` (Bradley-Terry), or where it is 0 1 for the higher one and 1/2 for equal ones. Rows may have left since.
    """
    same = batch.group[:, None] == batch.group
    if batch.beats is not None:
        place = (~batch.beats.isnan()).long().cumprod(1).sum(1)  # a row's own place is its first NaN
        place = place.clamp(max=batch.beats.shape[1] - 1)
        said = ~batch.beats.isnan().all(1)
        table = torch.where(same & said & said[:, None], batch.beats[:, place], torch.nan)
        return table.masked_fill(torch.eye(len(table), dtype=torch.bool, device=table.device), 0.5)
    gap = batch.reward[:, None] - batch.reward
    return torch.where(same, torch.sigmoid(gap / scale) if scale else (1 + gap.sign()) / 2, torch.nan)


def _slots(group: Tensor) -> Tensor:
    """For each place a number below ``len(group)`` that its group alone has: how many places lie in groups before it. How many
    groups there are need not be known, so that no GPU is waited for."""
    return torch.searchsorted(group.sort().values, group.contiguous())
