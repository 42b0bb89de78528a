"""Pass@k training and PKPO."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.groups import group_rank, group_std, group_sum
from policyopt.methods.group.grpo import grpo
from policyopt.part import Advantage, Count, NonNegative, Unit, part
from policyopt.parts import Correctness
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch


def choose_ratio(some: Tensor, all: Tensor, k: int) -> Tensor:
    r"""The probability :math:`\binom{some}{k} / \binom{all}{k}` that k of ``all`` drawn without replacement lie among
    ``some`` of them; where there are fewer than k, all are drawn."""
    out = torch.ones_like(some)
    for j in range(k):
        drawn = (some - j).clamp(min=0) / (all - j).clamp(min=1)
        out = torch.where(all > j, out * drawn, out)
    return out


@part
class PassAtK(Advantage):
    r"""The group-normalised advantage of pass@k, in closed form over all subsets of k responses to a prompt.

    .. math:: \bar R = 1 - \binom{n-c}{k} \Big/ \binom nk,\quad \sigma = \sqrt{\bar R(1-\bar R)},\quad
              A_{right} = \frac{1-\bar R}{\sigma+\epsilon},\quad
              A_{wrong} = \frac{1 - \bar R - \binom{n-c-1}{k-1} / \binom{n-1}{k-1}}{\sigma+\epsilon}

    n responses to the prompt, c of them right (their reward is above 0). The advantages of a group add up to 0.
    Source: Pass@k Training, arXiv:2508.10751, and the authors' code (RUCAIBox/Passk_Training).
    """

    k: Count = 4
    """Size of the subsets; 1 is :class:`~policyopt.parts.Normalise` of rewards 0 and 1 with ddof 0."""
    eps: NonNegative = 1e-6
    """Added to the standard deviation."""

    unit: ClassVar[Unit] = "group"
    min_group: ClassVar[int] = 2

    def __call__(self, batch: Batch) -> Tensor:
        right = (batch.total_reward() > 0).to(batch.mask)
        n, c = group_sum(torch.ones_like(right), batch.group), group_sum(right, batch.group)
        none = choose_ratio(n - c, n, self.k)
        others = choose_ratio((n - c - 1).clamp(min=0), n - 1, self.k - 1)
        advantage = torch.where(right > 0, none, none - others) / ((none * (1 - none)).sqrt() + self.eps)
        return advantage[:, None] * batch.mask


@part
class MaxAtK(Advantage):
    r"""The gradient of the best reward among k responses, for any rewards (PKPO).

    .. math:: s_i = \binom nk^{-1} \sum_{I \ni i,\,|I|=k} \max_I R,\qquad A_i = n\,s_i

    s_i is for a sum over the responses to a prompt, and aggregations average over them: hence the factor n. With ``leave_one_out`` the best of the others is
    subtracted inside the sum, which changes no expectation, and only a response that is the best of some subset has
    weight. A prompt with fewer than k responses has subsets of all of them. With ``scale`` "group" A is divided by the standard
    deviation (ddof 1) of the group's rewards plus ``eps``. Sources: PKPO, arXiv:2505.15201; the division is that of verl's
    ``grpo_passk`` (after arXiv:2503.19595).
    """

    k: Count = 4
    """Size of the subsets."""
    leave_one_out: bool = True
    """Subtract the best of the other k - 1 (LOO minus one)."""
    scale: Literal["none", "group"] = "none"
    """Over which rows the spread is taken that A is divided by."""
    eps: NonNegative = 1e-6
    """Added to the spread."""

    unit: ClassVar[Unit] = "group"

    def __call__(self, batch: Batch) -> Tensor:
        size = group_sum(torch.ones_like(batch.reward), batch.group)
        advantage = size * self.weights(batch)
        if self.scale == "group":
            advantage = advantage / (group_std(batch.total_reward(), batch.group, 1) + self.eps)
        return advantage[:, None] * batch.mask

    def weights(self, batch: Batch) -> Tensor:
        """s [N]: weights for a sum over the responses to a prompt."""
        reward, rank = batch.total_reward(), group_rank(batch.total_reward(), batch.group)
        out = torch.zeros_like(reward)
        for g in batch.group.unique():
            rows = (batch.group == g).nonzero()[:, 0]
            rows = rows[rank[rows].argsort()]
            out[rows] = self._sorted(reward[rows])
        return out

    def _sorted(self, reward: Tensor) -> Tensor:
        """The weights of one group whose rewards rise."""
        n = torch.tensor(float(len(reward)), dtype=reward.dtype, device=reward.device)
        k, below = min(self.k, len(reward)), torch.arange(len(reward), device=reward.device).to(reward)
        # Of all subsets: the share in which a row is the best; in which it is the best and a given lower row is in it.
        alone = k / n * choose_ratio(below, n - 1, k - 1)
        above = k * (k - 1) / (n * (n - 1).clamp(min=1)) * choose_ratio((below - 1).clamp(min=0), n - 2, k - 2)
        if not self.leave_one_out:
            return alone * reward + (above * reward).flip(0).cumsum(0).flip(0) - above * reward
        if k == 1:
            return reward / n
        # The second best of a subset whose best is row i is row j < i in this share of all subsets.
        second = k * (k - 1) / (n * (n - 1).clamp(min=1)) * choose_ratio(below, n - 2, k - 2)
        return reward * (second.cumsum(0) - second) - ((second * reward).cumsum(0) - second * reward)


@method(
    parent=grpo,
    arxiv="2508.10751",
    code="RUCAIBox/Passk_Training",
    confidence="code",
    claim=Claim(
        "Trained for the best of k responses, the policy keeps exploring and solves more within k attempts.",
        "many-answers",
        (Effect("pass@4", "higher", 0.01), Effect("entropy", "higher", 0.02)),
        theirs={"kl-coef": 0.0},
    ),
)
def pass_at_k(
    k: int = 4,
    form: Literal["passk", "pkpo", "pkpo-loo"] = "passk",
    low: float | None = 0.2,
    high: float | None = 0.2,
    kl_coef: float = 0.0,
    group_size: int = 8,
    scale: Literal["none", "group"] = "none",
) -> Recipe:
    r"""Train the chance that at least one of k responses is right: credit that fades on easy prompts and keeps
    exploration alive.

    .. math:: \bar R = 1 - \binom{n-c}{k} \Big/ \binom nk,\qquad A_{right} = \frac{1-\bar R}{\sigma+\epsilon},\qquad
              A_{wrong} = \frac{1 - \bar R - \binom{n-c-1}{k-1} / \binom{n-1}{k-1}}{\sigma+\epsilon}

    n responses to a prompt, c of them right. ``passk`` is that closed form of arXiv:2508.10751, the reward 1 or 0;
    ``pkpo`` and ``pkpo-loo`` take the gradient of the best reward among k for any rewards, without and with its
    leave-one-out baseline (PKPO, arXiv:2505.15201); ``pkpo-loo`` with k = ``group_size`` trains the best response
    alone, by its distance from the second best. PKPO's weights s_i are for a sum over the n responses to a prompt, and the
    loss averages over them, so that their advantages here are :math:`n s_i`. ``scale`` "group" divides these by the spread of the
    group's rewards; ``passk`` has its own. verl's ``grpo_passk`` is that last form with the division (unless told otherwise) and
    without the factor n, for a step of one n-th. Our reading: the loss is GRPO's without KL, k = 4. Raises ``ValueError`` for a
    ``scale`` under ``passk``.
    """
    if form == "passk" and scale != "none":
        raise ValueError(
            f'scale is "{scale}", but form "passk" is divided by its own spread: take form="pkpo-loo", or scale="none"'
        )
    recipe = grpo(low, high, kl_coef=kl_coef, group_size=group_size)
    if form == "passk":
        return recipe.replace(shape=(Correctness(right=1.0, wrong=0.0),), advantage=PassAtK(k=k))
    return recipe.replace(advantage=MaxAtK(k=k, leave_one_out=form == "pkpo-loo", scale=scale))
