"""Advantages: how much better than expected each token was, [N, T]."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from policyopt.batch import Batch, masked
from policyopt.parts.base import Advantage, Finite, Fraction, NonNegative, Positive, Unit, part
from policyopt.parts.value import gae


def group_sum(x: Tensor, group: Tensor) -> Tensor:
    """Sum of ``x`` [N] over the rows of the same group, given back to every row, [N]."""
    groups, index = torch.unique(group, return_inverse=True)
    return torch.zeros(len(groups), dtype=x.dtype, device=x.device).index_add(0, index, x)[index]


def group_mean(x: Tensor, group: Tensor) -> Tensor:
    """Mean of ``x`` [N] over the rows of the same group, given back to every row, [N]; exactly x where all are
    equal."""
    _, index = torch.unique(group, return_inverse=True)
    low = torch.full_like(x, torch.inf).scatter_reduce(0, index, x, "amin")[index]
    return low + group_sum(x - low, group) / group_sum(torch.ones_like(x), group)


def group_std(x: Tensor, group: Tensor, ddof: int) -> Tensor:
    """Standard deviation of ``x`` [N] over the rows of the same group, given back to every row, [N]; 0 for a row
    alone."""
    square = group_sum((x - group_mean(x, group)) ** 2, group)
    return (square / (group_sum(torch.ones_like(x), group) - ddof).clamp(min=1)).sqrt()


@part
class Normalise(Advantage):
    r"""Reward minus a centre, over a scale; the same on every token of a response.

    .. math:: A_{i,t} = \frac{R_i - c_i}{s_i + \epsilon}

    R is ``reward`` plus the sum of the row's token rewards. Centre: ``none`` (0), ``constant`` (the field
    ``baseline``), ``batch`` or ``group`` mean, or the mean of the other rows of the group (``leave-one-out``). Scale:
    ``none`` (1, no eps), or the standard deviation of the ``batch`` or the ``group``. A group of one has no baseline
    but itself: its advantage is 0. Sources: GRPO, arXiv:2402.03300, section 4.1.2 (group, group); Dr. GRPO,
    arXiv:2503.20783 (group, none); RLOO, arXiv:2402.14740, eq. 4 (leave-one-out, none). Our reading of what papers
    leave open: ddof 1 and eps 1e-6 (verl).
    """

    centre: Literal["none", "constant", "batch", "group", "leave-one-out"] = "group"
    """What is subtracted."""
    scale: Literal["none", "batch", "group"] = "group"
    """What it is divided by."""
    ddof: Literal[0, 1] = 1
    """Delta degrees of freedom of the standard deviation."""
    eps: NonNegative = 1e-6
    """Added to the standard deviation."""
    baseline: Finite = 0.0
    """The centre where it is ``constant``; a controller may move it."""

    unit: ClassVar[Unit] = "batch"

    @property
    def min_group(self) -> int:  # type: ignore[override]
        """Two where the group is the baseline or the scale, else one."""
        return 2 if self.centre in ("group", "leave-one-out") or self.scale == "group" else 1

    def __call__(self, batch: Batch) -> Tensor:
        reward = batch.total_reward()
        advantage = reward - self.baseline if self.centre == "constant" else reward
        if self.centre in ("batch", "group", "leave-one-out"):
            group = _scope(batch, self.centre)
            advantage = reward - group_mean(reward, group)
            if self.centre == "leave-one-out":
                size = group_sum(torch.ones_like(reward), group)
                advantage = advantage * size / (size - 1).clamp(min=1)
        if self.scale != "none":
            advantage = advantage / (group_std(reward, _scope(batch, self.scale), self.ddof) + self.eps)
        return advantage[:, None] * batch.mask


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
class GreedyBaseline(Advantage):
    r"""Reward minus the reward of the greedy response to the same prompt, discounted towards the start.

    .. math:: A_{i,t} = \gamma^{|y_i|-t}\,\mathrm{clip}(R_i - B_i, \pm c) + \rho_{i,t}

    t counts from 0, so even the last token is discounted once; rho is the token reward of that token alone (a KL
    penalty is not accumulated). Source: ReMax, arXiv:2310.10505, and the authors' trainer (liziniu/ReMax); the paper
    has gamma = 1.
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
    whitening as in openai/lm-human-preferences. Our reading: ddof 1, statistics over all tokens of the batch that was
    drawn.
    """

    gamma: Fraction = 1.0
    """Discount per token."""
    lam: Fraction = 0.95
    """Trade of bias (0: one-step error) for variance (1: return to go minus value)."""
    whiten: bool = True
    """Centre and scale over all tokens of the batch."""
    ddof: Literal[0, 1] = 1
    """Delta degrees of freedom of the whitening."""
    whiten_eps: NonNegative = 1e-8
    """Added to the variance."""

    needs: ClassVar[frozenset[str]] = frozenset({"value"})
    unit: ClassVar[Unit] = "batch"

    def __call__(self, batch: Batch) -> Tensor:
        raw = gae(batch, self.gamma, self.lam)
        if not self.whiten:
            return raw
        count = batch.mask.sum()
        mean = raw.sum() / count.clamp(min=1)
        variance = (((raw - mean) * batch.mask) ** 2).sum() / (count - self.ddof).clamp(min=1)
        return (raw - mean) / (variance + self.whiten_eps).sqrt() * batch.mask
