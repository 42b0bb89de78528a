"""DCPO, the one with dynamic clipping."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.groups import group_mean, group_std
from policyopt.methods.clip.dapo import dapo
from policyopt.part import Advantage, Level, Memory, Positive, Unit, part
from policyopt.parts import Bounds, PPOClip, SeqMeanTokenMean, SumOverRows
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch
from policyopt.sources.draw import Group


@part
class ProbabilityBounds(Bounds):
    r"""Wide for tokens that the old policy found unlikely: the bounds of :math:`|r-1|\,\pi_\theta \le \epsilon`.

    .. math:: lo = \tfrac12 + \tfrac12\sqrt{\max(1 - 4\epsilon_{low}/q, 0)},\qquad
              hi = \min\big(\tfrac12 + \tfrac12\sqrt{1 + 4\epsilon_{high}/q},\, c\big),\qquad q = \pi_{old}(y_{i,t})

    The lower bound never falls below 1/2. Source: DCPO, arXiv:2509.02333, and the authors' code (lime-RL/DCPO).
    """

    cap: Positive | None = 10.0
    """c, the largest upper bound; None for no limit."""

    levels: ClassVar[frozenset[Level]] = frozenset({"token"})

    def __call__(self, low: float, high: float, log_ratio: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        rarity = 4 * (-batch.old_logp).exp()
        lower = 0.5 + 0.5 * (1 - low * rarity).clamp(min=0).sqrt()
        return lower, (0.5 + 0.5 * (1 + high * rarity).sqrt()).clamp(max=math.inf if self.cap is None else self.cap)


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


@method(
    parent=dapo,
    arxiv="2509.02333",
    code="lime-RL/DCPO",
    confidence="code",
    claim=Claim(
        "Bounds that are wide for rare tokens clip fewer tokens off policy, and the policy learns more.",
        "stale",
        (Effect("clip_fraction/low", "lower", 0.002), Effect("accuracy", "higher", 0.01)),
        against="grpo",
        theirs={"kl-coef": 0.0},
    ),
)
def dcpo_clipping(
    low: float | None = 0.16,
    high: float | None = 0.2,
    ratio_max: float | None = 10.0,
    minibatches: int = 1,
    group_size: int = 8,
) -> Recipe:
    r"""Dynamic Clipping Policy Optimization: bounds from the old probability of the token, advantages from all visits
    to the prompt.

    .. math:: lo = \tfrac12 + \tfrac12\sqrt{\max(1 - 4\epsilon_l/q, 0)},\qquad hi = \min\big(\tfrac12 + \tfrac12\sqrt{1 + 4\epsilon_h/q},\, c\big),\qquad
              L = \sum_i\frac1{|y_i|}\sum_t\max(-rA, -\mathrm{clip}(r, lo, hi)A)

    q = :math:`\pi_{old}(y_{i,t})`: rare tokens may move far, common ones little. c = ``ratio_max`` also ends the loss
    of bad tokens (dual clip). The reward is standardised by this visit to the prompt and by all of them so far, and the
    smaller advantage counts, so that a group with equal rewards still teaches. Losses are averaged in a response and
    summed over responses. No KL, no dynamic sampling, no length penalty. Defaults: the paper's table; the authors' run
    script has 0.2 and 0.28. Our reading: the sum runs over the mini-batch.
    """
    return dapo(minibatches=minibatches).replace(
        source=Group(size=group_size),
        shape=(),
        filter=(),
        advantage=SmoothNormalise(),
        memory=VisitMoments(),
        surrogate=PPOClip(low=low, high=high, bounds=ProbabilityBounds(cap=ratio_max), dual=ratio_max),
        aggregate=SumOverRows(inner=SeqMeanTokenMean()),
    )
