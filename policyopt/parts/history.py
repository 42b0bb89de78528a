"""Advantages that remember a prompt: statistics over all visits, not over one group alone."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from policyopt.batch import Batch
from policyopt.parts.advantage import group_mean, group_std
from policyopt.parts.base import Advantage, Memory, Unit, part


def visits(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    r"""Number of visits i to each row's prompt, this one included, and mean and spread of the reward over all of them,
    each [N].

    .. math:: \mu_i = \frac{(i-1)\mu_{i-1} + \mu}{i},\qquad
              s_i^2 = \frac1i\Big((i-1)s_{i-1}^2 + s^2 + \frac{i-1}{i}(\mu - \mu_{i-1})^2\Big)

    mu and s (ddof 1) are those of the group. Every visit weighs the same. Source: DCPO, arXiv:2509.02333, and the
    authors' code (lime-RL/DCPO): the spreads of the visits are mixed, it is not that of the pool.
    """
    reward = batch.total_reward()
    before, old_mean, old_std = batch.history[:, :3].nan_to_num(0.0).unbind(-1)
    mean, std, count = group_mean(reward, batch.group), group_std(reward, batch.group, 1), before + 1
    spread = before * old_std**2 + std**2 + before / count * (mean - old_mean) ** 2
    return count, (before * old_mean + mean) / count, (spread / count).sqrt()


@part
class VisitMoments(Memory):
    """Number of visits, and mean and spread of the reward over them; see :func:`visits`."""

    width: ClassVar[int] = 3

    def __call__(self, batch: Batch) -> Tensor:
        return torch.stack(visits(batch), dim=-1)


@part
class SmoothNormalise(Advantage):
    r"""Reward standardised by this visit to the prompt and by all visits, whichever mixture is smaller.

    .. math:: A^n = \frac{R-\mu}{s},\quad A^t = \frac{R-\mu_i}{s_i},\qquad
              A = \text{the smaller in size of}\quad \tfrac{i-1}{i}A^n + \tfrac1i A^t \quad\text{and}\quad \tfrac1i A^n + \tfrac{i-1}{i}A^t

    A quotient by 0 is 0. At the first visit A is GRPO's without eps; later a group whose rewards are all the same still
    teaches. Needs the memory :class:`VisitMoments`. Source: DCPO, arXiv:2509.02333, and the authors' code
    (lime-RL/DCPO).
    """

    needs: ClassVar[frozenset[str]] = frozenset({"history"})
    unit: ClassVar[Unit] = "group"
    min_group: ClassVar[int] = 2

    def __call__(self, batch: Batch) -> Tensor:
        reward = batch.total_reward()
        count, mean, std = visits(batch)
        now = _standardised(reward, group_mean(reward, batch.group), group_std(reward, batch.group, 1))
        ever = _standardised(reward, mean, std)
        new, old = ((count - 1) * now + ever) / count, (now + (count - 1) * ever) / count
        return torch.where(new.abs() < old.abs(), new, old)[:, None] * batch.mask


def _standardised(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    return torch.where(std > 0, (x - mean) / torch.where(std > 0, std, 1), 0.0)
