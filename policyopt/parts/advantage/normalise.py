"""Advantages: a reward against a mean, over a spread."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from policyopt.groups import group_mean, group_std, group_sum, whiten
from policyopt.part import Advantage, Finite, Fraction, NonNegative, Unit, Wrapper, part
from policyopt.parts.advantage.gae import gae
from policyopt.parts.aggregate.means import SeqMeanTokenMean
from policyopt.parts.select.rows import RowSelector, picked
from policyopt.rows import Batch


@part
class Normalise(Wrapper, Advantage):
    r"""Reward minus a centre, over a scale; the same on every token of a response, unless rewards count to go.

    .. math:: A_{i,t} = \frac{R_{i,t} - c_i}{s_i + \epsilon}

    R is ``reward`` plus the sum of the row's token rewards or, with ``gamma``, of those that are still to come. Centre:
    ``none`` (0), ``constant`` (the field ``baseline``), ``batch`` or ``group`` mean, the mean of the group in which each
    row counts once for each of its tokens (``length-weighted``), or the mean of the other rows of the group
    (``leave-one-out``). Scale: ``none`` (1, no eps), or over the ``batch`` or the ``group`` the standard
    deviation or the mean. A group of one has no baseline but itself: its advantage is 0. With ``whiten`` the result is
    centred and scaled once more over the whole batch. Of ``rows`` alone are centre and scale made; the others are
    measured by them, and have an advantage of 0 where there are none.

    Sources: GRPO, arXiv:2402.03300, section 4.1.2 (group, group); Dr. GRPO, arXiv:2503.20783 (group, none); RLOO,
    arXiv:2402.14740, eq. 4 (leave-one-out, none); OPO, arXiv:2505.23585 (length-weighted, none); Lite PPO, arXiv:2508.08221 (group, batch); MaxRL, arXiv:2602.02710
    (group, mean of the group); REINFORCE++, arXiv:2501.03262 (whiten). Our reading of what papers leave open: ddof 1
    and eps 1e-6 (verl).
    """

    centre: Literal["none", "constant", "batch", "group", "length-weighted", "leave-one-out"] = "group"
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
    rows: RowSelector | None = None
    """The rows that the statistics see; None for all."""

    around: ClassVar[str] = "rows"
    unit: ClassVar[Unit] = "batch"

    @property
    def min_group(self) -> int:
        """Two where the group is the baseline or the scale, else one."""
        return 2 if self.centre not in ("none", "constant", "batch") or self.scale == "group" else 1

    def __call__(self, batch: Batch) -> Tensor:
        reward, seen = batch.total_reward(), picked(self.rows, batch)
        advantage = self._gain(reward, seen, batch)[:, None].expand_as(batch.mask)
        if self.gamma is not None:
            to_go = gae(batch.replace(old_value=torch.zeros_like(batch.mask)), self.gamma, 1.0)
            advantage = advantage + (to_go - reward[:, None])
        if self.scale != "none":
            advantage = advantage / self._divisor(reward, seen, _scope(batch, self.scale))[:, None]
        if self.whiten != "none":
            weight = batch.mask if self.whiten == "token" else SeqMeanTokenMean()(batch) * len(reward)
            advantage = whiten(advantage, weight=weight * seen[:, None], ddof=self.ddof, least=1e-8)
        return advantage * batch.mask

    def _gain(self, reward: Tensor, seen: Tensor, batch: Batch) -> Tensor:
        """Reward minus centre, [N]."""
        if self.centre in ("none", "constant"):
            return reward - self.baseline if self.centre == "constant" else reward
        group = _scope(batch, self.centre)
        size = group_sum(seen, group)
        weight = seen * batch.length() if self.centre == "length-weighted" else seen
        gain = torch.where(size > 0, reward - group_mean(reward, group, weight), 0.0)
        if self.centre == "leave-one-out":
            gain = torch.where(seen > 0, gain * size / (size - 1).clamp(min=1), gain)
        return gain

    def _divisor(self, reward: Tensor, seen: Tensor, group: Tensor | None) -> Tensor:
        if self.spread == "std":
            return group_std(reward, group, self.ddof, seen) + self.eps
        mean = group_mean(reward, group, seen)
        return torch.where(mean > 0, mean + self.eps, torch.inf)


def _scope(batch: Batch, over: str) -> Tensor | None:
    """The groups that a statistic runs over, None for all rows together."""
    return None if over == "batch" else batch.group
