"""Groups as prefix trees: responses that begin with the same tokens share the worth of this beginning."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from policyopt.batch import Batch, masked
from policyopt.parts.advantage import group_mean, group_std
from policyopt.parts.base import Advantage, Finite, NonNegative, Unit, part


def prefix_values(batch: Batch) -> Tensor:
    r""":math:`V(s) = \mathrm{mean}_{j:\, y_j\text{ begins with }s} R_j` of the first k = 0..T tokens of each row,
    [N, T + 1], over the rows of its group; 0 beyond the response. O(N T log N)."""
    reward = batch.total_reward()
    there = batch.mask.bool() if batch.present is None else batch.present.bool()
    length = (there.flip(-1).cumsum(-1) > 0).sum(-1)
    tokens = torch.where(there, batch.tokens, -1)
    node = batch.group.long()
    found = [group_mean(reward, node)]
    for k in range(there.shape[1]):
        inside = k < length
        node = torch.unique(torch.stack([node, tokens[:, k]], 1)[inside], dim=0, return_inverse=True)[1]
        value = torch.zeros_like(reward)
        value[inside] = group_mean(reward[inside], node)
        found.append(value)
        node = torch.zeros_like(length).index_put((inside.nonzero()[:, 0],), node)
    return torch.stack(found, 1)


@part
class PrefixAdvantage(Advantage):
    r"""GRPO's advantage, and on tokens that leave a branching prefix the change of its worth.

    .. math:: A_{i,t} = \frac{R_i - \mathrm{mean} + c\,\delta_{i,t}}{\mathrm{std} + \epsilon},\qquad
              \delta_{i,t} = V(y_{i,\le t}) - V(y_{i,<t})

    V is :func:`prefix_values`. Source: TEMPO, arXiv:2509.18314.
    """

    td_coef: Finite = 1.0
    """c."""
    ddof: Literal[0, 1] = 1
    """Delta degrees of freedom of the standard deviation."""
    eps: NonNegative = 1e-6
    """Added to the standard deviation."""

    unit: ClassVar[Unit] = "batch"
    min_group: ClassVar[int] = 2

    def difference(self, batch: Batch) -> Tensor:
        """delta, [N, T]."""
        value = prefix_values(batch)
        return masked(value[:, 1:] - value[:, :-1], batch.mask)

    def __call__(self, batch: Batch) -> Tensor:
        reward, group = batch.total_reward(), batch.group
        gain = (reward - group_mean(reward, group))[:, None] + self.td_coef * self.difference(batch)
        return gain / (group_std(reward, group, self.ddof) + self.eps)[:, None] * batch.mask
