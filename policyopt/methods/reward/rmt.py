"""RMT."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.control import Schedule
from policyopt.groups import group_mean, group_rank, group_sum
from policyopt.methods.group.grpo import grpo
from policyopt.part import NonNegative, Unit, Weight, part
from policyopt.parts import Correctness, LengthReward
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch, masked_mean


@part
class TierWeight(Weight):
    r"""Weigh prompts as if a tier were drawn first, then a prompt in it: :math:`w_i = p_{k(i)}\,P / P_{k(i)}`.

    The P prompts of the mini-batch are put in the order of their entropy, the mean over the tokens sampled for them,
    and cut into three tiers of equal size, easy to hard; P_k of them are in tier k. Where a tier is empty the others
    share what is its. Source: RMT, arXiv:2509.24375, which draws the tokens to be predicted so; the thresholds between
    tiers are not given there. Our reading: equal thirds, and weights in the place of draws, which is the same in
    expectation and needs no entropy before sampling.
    """

    share: tuple[NonNegative, NonNegative, NonNegative] = (0.6, 0.3, 0.1)
    """p: weights of the easy, the middle and the hard tier; controllers may move them."""

    unit: ClassVar[Unit] = "batch"
    asks: ClassVar[frozenset[str]] = frozenset({"sampling entropy"})

    def __call__(self, log_ratio: Tensor, batch: Batch) -> Tensor:
        tier = self.tiers(batch)
        one = 1 / group_sum(torch.ones_like(batch.mask[:, 0]), batch.group)  # each prompt counts once
        size = group_sum(one, tier)
        p = torch.tensor(self.share, dtype=one.dtype, device=one.device)[tier]
        there = (one * p / size).sum()  # the probability of the tiers that are not empty
        weight = p * one.sum() / (size * there.clamp(min=torch.finfo(one.dtype).tiny))
        return weight[:, None].expand_as(log_ratio)

    def tiers(self, batch: Batch) -> Tensor:
        """The tier of each row's prompt, [N]: 0 easy, 1 middle, 2 hard."""
        entropy = group_mean(masked_mean(batch.sampled_entropy, batch.mask, dim=-1), batch.group)
        prompts, index = torch.unique(batch.group, return_inverse=True)
        value = torch.zeros(len(prompts), dtype=entropy.dtype, device=entropy.device).scatter(0, index, entropy)
        rank = group_rank(value, torch.zeros_like(prompts))
        return (rank * len(self.share) // max(1, len(prompts)))[index]


Tiers = tuple[float, float, float]


@method(
    parent=grpo,
    arxiv="2509.24375",
    confidence="secondary",
    claim=Claim(
        "A budget of thinking that shrinks, and prompts from easy to hard: as many right answers with far "
        "shorter thinking.",
        "verbose",
        (Effect("length", "lower", 10.0), Effect("accuracy", "higher", -0.02)),
        ours={"b0": 52, "gamma": 0.5, "total-steps": 60},
        theirs={"kl-coef": 0.0},
    ),
)
def rmt(
    b0: float = 800.0,
    b_min: float = 1.0,
    gamma: float = 0.2,
    total_steps: int = 60,
    r_max: float = 1.0,
    w: float = 0.2,
    t1: int | None = None,
    t2: int | None = None,
    p1: Tiers = (0.6, 0.3, 0.1),
    p2: Tiers = (0.1, 0.3, 0.6),
    low: float | None = 0.2,
    high: float | None = 0.2,
    kl_coef: float = 0.0,
    group_size: int = 8,
) -> Recipe:
    r"""Reinforcement Mid-Training: a budget of thinking that shrinks as training goes on, and prompts from easy to hard.

    .. math:: R = (1-w)\,1[\text{right}] + w\,r_{max}\,\max\Big(0,\; 1 - \Big|1 - \frac{|y|}{B_t}\Big|\Big),\qquad
              B_t = \max\big(B_{min}, \lfloor B_0\,\gamma^{t/T}\rfloor\big)

    The reward for length has its peak at the budget of step t of T = ``total_steps``: too short loses too. Prompts
    count by tier of difficulty, with weights ``p1`` until step ``t1``, ``p2`` from ``t2`` on and a straight line between
    them (None: 30 % and 70 % of T). Source: arXiv:2509.24375, from third parties' notes, which give B_0, B_min, gamma
    and the two shares of T; w, r_max, p1 and p2 are ours. Our reading: |y| is the whole response; tiers are weights, not
    draws (:class:`~policyopt.methods.reward.rmt.TierWeight`). The paper's task is the next token of a corpus, its budget stands
    in the prompt, and other tokens get the next-token loss: these belong to a task over a corpus, not to this recipe.
    """
    first = round(0.3 * total_steps) if t1 is None else t1
    last = max(first + 1, round(0.7 * total_steps) if t2 is None else t2)
    budget = Schedule(
        field="shape.LengthReward.reference", start_value=b0, end_value=b0 * gamma, steps=total_steps, shape="exponential",
        whole=True, least=b_min, label="budget",
    )  # fmt: skip
    tiers = Schedule(
        field="weight.TierWeight.share", start_value=p1, end_value=p2, steps=last - first, delay=first, label="tiers"
    )
    return grpo(low, high, kl_coef=kl_coef, group_size=group_size).replace(
        shape=(
            Correctness(right=1 - w, wrong=0.0),
            LengthReward(coef=w, reference=b0, past="back", right=(0.0, r_max), wrong=(0.0, r_max)),
        ),
        weight=(TierWeight(share=p1),),
        controllers=(budget, tiers),
    )
