"""Advantages: how much better than expected each token was, [N, T]."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from policyopt.batch import Batch, masked
from policyopt.parts.aggregate import SeqMeanTokenMean
from policyopt.parts.base import Advantage, Finite, Fraction, NonNegative, Positive, Unit, part
from policyopt.parts.value import Cut, gae


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
    """[N] the group of each row where what each source drew for a prompt is a group of its own."""
    if batch.source is None or not len(batch.source):
        return batch.group
    return batch.group * (int(batch.source.max()) + 1) + batch.source.to(batch.group)


def difficulty(reward: Tensor, group: Tensor, recent: float) -> Tensor:
    """How hard each row's prompt is, [N]: ``recent``, the mean over earlier prompts of their mean rewards, minus the
    mean of ``reward`` [N] over the row's group. Positive is harder than usual. Source: DeepVideo-R1, arXiv:2506.07464."""
    return recent - group_mean(reward, group)


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
    def min_group(self) -> int:  # type: ignore[override]
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


@part
class StepNormalise(Advantage):
    r"""Process supervision: rewards of single steps, normalised over all steps of the group, then summed from the
    token on.

    .. math:: \tilde r_{ij} = \frac{r_{ij} - \mathrm{mean}}{\mathrm{std} + \epsilon},\qquad A_{i,t} = \sum_{j:\, e_{ij} \ge t} \tilde r_{ij}

    e_ij is the index of the last token of step j. Source: GRPO, arXiv:2402.03300, section 4.1.3.
    """

    ddof: Literal[0, 1] = 1
    """Delta degrees of freedom of the standard deviation."""
    eps: NonNegative = 1e-6
    """Added to the standard deviation."""

    needs: ClassVar[frozenset[str]] = frozenset({"step_reward"})
    unit: ClassVar[Unit] = "batch"

    def __call__(self, batch: Batch) -> Tensor:
        position = torch.arange(batch.mask.shape[1], device=batch.mask.device)
        reached = batch.step_end[:, :, None] >= position
        return (self.normalised(batch)[:, :, None] * reached).sum(1) * batch.mask

    def normalised(self, batch: Batch) -> Tensor:
        """The step rewards after normalisation, [N, K], 0 where a response has no such step."""
        there = batch.step_end >= 0
        group, reward = batch.group[:, None].expand_as(there)[there], batch.step_reward[there]
        normalised = torch.zeros_like(batch.step_reward)
        normalised[there] = (reward - group_mean(reward, group)) / (group_std(reward, group, self.ddof) + self.eps)
        return normalised


@part
class RolloutBaseline(Advantage):
    r"""Reward minus a baseline that the rollout drew for the same prompt, discounted towards the start.

    .. math:: A_{i,t} = \gamma^{|y_i|-t}\,\mathrm{clip}(R_i - B_i, \pm c) + \rho_{i,t}

    B is ``baseline_reward``: the reward of the greedy response, or the mean over all that was drawn, rows that are not
    trained on too. t counts from 0, so even the last token is discounted once; rho is the token reward of that token
    alone (a KL penalty is not accumulated). Sources: ReMax, arXiv:2310.10505, and the authors' trainer
    (liziniu/ReMax), the paper has gamma = 1; Reinforce-Ada, arXiv:2510.04996 (mean of the pool, no clip).
    """

    gamma: Fraction = 1.0
    """Discount per token."""
    clip: Positive | None = 5.0
    """Bound on the difference of rewards; None for no bound."""

    needs: ClassVar[frozenset[str]] = frozenset({"baseline_reward"})
    unit: ClassVar[Unit] = "row"

    def __call__(self, batch: Batch) -> Tensor:
        difference = batch.reward - batch.baseline_reward
        if self.clip is not None:
            difference = difference.clamp(-self.clip, self.clip)
        to_go = batch.mask.flip(-1).cumsum(-1).flip(-1)
        advantage = difference[:, None] * self.gamma**to_go
        if batch.token_reward is not None:
            advantage = advantage + batch.token_reward
        return masked(advantage, batch.mask)


@part
class GAE(Advantage):
    r"""Generalised advantage estimation over the tokens that the policy wrote, whitened over the batch.

    .. math:: \delta_t = \rho_t + \gamma V_{t+1} - V_t,\qquad \hat A_t = \sum_l (\gamma\lambda)^l \delta_{t+l},\qquad
              A = (\hat A - \mu) / \sqrt{\sigma^2 + \epsilon}

    rho holds the token rewards and, on the last token, the response's reward. Source: arXiv:1506.02438, eq. 16;
    whitening as in openai/lm-human-preferences; ``cut="hold"`` is the extended form of T-PPO, arXiv:2506.15050. Our
    reading: ddof 1, statistics over all tokens of the batch that was drawn.
    """

    gamma: Fraction = 1.0
    """Discount per token."""
    lam: Fraction = 0.95
    """Trade of bias (0: one-step error) for variance (1: return to go minus value)."""
    cut: Cut = "end"
    """What follows the last token of a truncated response: nothing (``end``), or the value before it (``hold``)."""
    whiten: bool = True
    """Centre and scale over all tokens of the batch that the policy wrote."""
    ddof: Literal[0, 1] = 1
    """Delta degrees of freedom of the whitening."""
    whiten_eps: NonNegative = 1e-8
    """Added to the variance."""

    needs: ClassVar[frozenset[str]] = frozenset({"value"})
    unit: ClassVar[Unit] = "batch"

    def __call__(self, batch: Batch) -> Tensor:
        raw = gae(batch, self.gamma, self.lam, self.cut)
        if not self.whiten:
            return raw
        mean, variance = moments(raw, batch.own(), self.ddof)
        return (raw - mean) / (variance + self.whiten_eps).sqrt() * batch.mask
