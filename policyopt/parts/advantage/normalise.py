"""Advantages: a reward against a mean, over a spread."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from policyopt.groups import group_mean, group_std, group_sum, moments
from policyopt.part import Advantage, Finite, Fraction, NonNegative, Unit, part
from policyopt.parts.advantage.gae import gae
from policyopt.parts.aggregate.means import SeqMeanTokenMean
from policyopt.rows import Batch


@part
class Normalise(Advantage):
    r"""Reward minus a centre, over a scale; the same on every token of a response, unless rewards count to go.

    .. math:: A_{i,t} = \frac{R_{i,t} - c_i}{s_i + \epsilon}

    R is ``reward`` plus the sum of the row's token rewards or, with ``gamma``, of those that are still to come. Centre:
    ``none`` (0), ``constant`` (the field ``baseline``), ``batch`` or ``group`` mean, or the mean of the other rows of
    the group (``leave-one-out``). Scale: ``none`` (1, no eps), or over the ``batch`` or the ``group`` the standard
    deviation or the mean. A group of one has no baseline but itself: its advantage is 0. With ``whiten`` the result is
    centred and scaled once more over the whole batch.

    Sources: GRPO, arXiv:2402.03300, section 4.1.2 (group, group); Dr. GRPO, arXiv:2503.20783 (group, none); RLOO,
    arXiv:2402.14740, eq. 4 (leave-one-out, none); Lite PPO, arXiv:2508.08221 (group, batch); MaxRL, arXiv:2602.02710
    (group, mean of the group); REINFORCE++, arXiv:2501.03262 (whiten). Our reading of what papers leave open: ddof 1
    and eps 1e-6 (verl).
    """

    centre: Literal["none", "constant", "batch", "group", "leave-one-out"] = "group"
    """What is subtracted."""
    scale: Literal["none", "batch", "group"] = "group"
    """Over which rows the divisor is taken."""
    spread: Literal["std", "mean"] = "std"
    """What is divided by: the standard deviation, or the mean reward (where it is 0 or less, the advantage is 0)."""
    ddof: Literal[0, 1] = 1
    """Delta degrees of freedom of the standard deviation, and of the whitening."""
    eps: NonNegative = 1e-6
    """Added to the divisor."""
    baseline: Finite = 0.0
    """The centre where it is ``constant``; a controller may move it."""
    gamma: Fraction | None = None
    """Discount per token of the reward to go; None credits every token with the reward of the whole response."""
    whiten: Literal["none", "row", "token"] = "none"
    """A second centre and scale over the batch, in which each row or each token counts once."""

    unit: ClassVar[Unit] = "batch"

    @property
    def min_group(self) -> int:
        """Two where the group is the baseline or the scale, else one."""
        return 2 if self.centre in ("group", "leave-one-out") or self.scale == "group" else 1

    def __call__(self, batch: Batch) -> Tensor:
        reward = batch.total_reward()
        advantage = self._gain(reward, batch)[:, None].expand_as(batch.mask)
        if self.gamma is not None:
            to_go = gae(batch.replace(old_value=torch.zeros_like(batch.mask)), self.gamma, 1.0)
            advantage = advantage + (to_go - reward[:, None])
        if self.scale != "none":
            advantage = advantage / self._divisor(reward, _scope(batch, self.scale))[:, None]
        if self.whiten != "none":
            weight = batch.mask if self.whiten == "token" else SeqMeanTokenMean()(batch) * len(reward)
            mean, variance = moments(advantage, weight, self.ddof)
            advantage = (advantage - mean) / variance.clamp(min=1e-8).sqrt()
        return advantage * batch.mask

    def _gain(self, reward: Tensor, batch: Batch) -> Tensor:
        """Reward minus centre, [N]."""
        if self.centre in ("none", "constant"):
            return reward - self.baseline if self.centre == "constant" else reward
        group = _scope(batch, self.centre)
        gain = reward - group_mean(reward, group)
        if self.centre == "leave-one-out":
            size = group_sum(torch.ones_like(reward), group)
            gain = gain * size / (size - 1).clamp(min=1)
        return gain

    def _divisor(self, reward: Tensor, rows: Tensor) -> Tensor:
        if self.spread == "std":
            return group_std(reward, rows, self.ddof) + self.eps
        mean = group_mean(reward, rows)
        return torch.where(mean > 0, mean + self.eps, torch.inf)


def _scope(batch: Batch, over: str) -> Tensor:
    """What a statistic runs over, as a number per row: the group, or one for all."""
    whole = over == "batch" or batch.group is None
    return torch.zeros_like(batch.reward, dtype=torch.long) if whole else batch.group
