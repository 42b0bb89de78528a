"""OTB."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.groups import group_mean, group_sum
from policyopt.methods.group.grpo import grpo
from policyopt.part import Advantage, Statistic, Unit, part
from policyopt.parts import LogCollision, TokenMean
from policyopt.parts.advantage.gae import gae
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch, masked

COLLISION = LogCollision()


@part
class TokenBaseline(Advantage):
    r"""The reward to go minus a baseline for each place in the response, in which the rows of the group count by the squared norm of
    their gradient so far.

    .. math:: A_{i,t} = G_{i,t} - \frac{\sum_j W_{j,t}\,G_{j,t}}{\sum_j W_{j,t}},\qquad
              W_{i,t} = \sum_{u\le t}\Big(1 - 2\,\pi(y_{i,u}) + \sum_v\pi(v)^2\Big)

    The sums run over the rows of the group that have a t-th token of their own; G is the sum of the rewards from that token on. The
    summand is the squared norm of the gradient of :math:`\log\pi(y_u)` with respect to the logits, so that W needs no pass backward.
    Sources: arXiv:2602.07078; verl's ``optimal_token_baseline`` and ``tir_optimal_token_baseline``. Our reading: a token's place is its number among
    the tokens that the policy wrote (verl's multi-turn form; the two differ where others wrote in between); a group of one is
    treated as every place with one row left.
    """

    alone: Literal["silent", "return"] = "silent"
    """What a token is credited with where its row is the only one of the group that is so long: nothing, since it is its own
    baseline, or G as it is (verl's ``handle_zero_tail``, the default of its multi-turn form)."""

    fixed: ClassVar[tuple[Statistic, ...]] = (COLLISION,)
    unit: ClassVar[Unit] = "group"
    min_group: ClassVar[int] = 2

    def __call__(self, batch: Batch) -> Tensor:
        there = batch.mask.bool()
        place = there.cumsum(-1) - 1
        peers = (batch.group[:, None] * there.shape[1] + place)[there]
        to_go = gae(batch.replace(old_value=torch.zeros_like(batch.mask)), 1.0, 1.0)
        baseline = group_mean(to_go[there], peers, self.energy(batch)[there])
        if self.alone == "return":
            baseline = torch.where(group_sum(torch.ones_like(baseline), peers) > 1, baseline, 0.0)
        advantage = torch.zeros_like(to_go)
        advantage[there] = to_go[there] - baseline
        return advantage

    def energy(self, batch: Batch) -> Tensor:
        """[N, T] W, up to and with each token."""
        norm = 1 - 2 * batch.old_logp.exp() + batch.fixed(COLLISION).exp()
        return masked(norm, batch.mask).clamp(min=0).cumsum(-1)


@method(
    parent=grpo,
    arxiv="2602.07078",
    code="volcengine/verl",
    confidence="code",
    claim=Claim(
        "A baseline of its own for every token does in groups of 4 what GRPO needs groups of 16 for.",
        "chain_sum",
        (Effect("accuracy", "higher", -0.02),),
        ours={"group-size": 4},
        theirs={"group-size": 16, "kl-coef": 0.0},
    ),
)
def otb(
    alone: Literal["silent", "return"] = "silent",
    low: float | None = 0.2,
    high: float | None = 0.2,
    group_size: int = 8,
) -> Recipe:
    r"""Optimal Token Baseline: every place in the response has the baseline of least variance, made from forward passes alone.

    .. math:: A_{i,t} = G_{i,t} - \frac{\sum_j W_{j,t}\,G_{j,t}}{\sum_j W_{j,t}},\qquad
              W_{i,t} = \sum_{u\le t}\Big(1 - 2\,\pi(y_{i,u}) + \sum_v\pi(v)^2\Big)

    The advantage is that of :class:`TokenBaseline`: rows that were sure of themselves so far hardly move the baseline. No division by the
    spread and no KL; PPO's clip, and the mean over tokens. For episodes of several turns ``alone`` "return" is verl's
    ``tir_optimal_token_baseline``. Source: arXiv:2602.07078, and verl (examples/otb_trainer: groups of 8). Our reading: weights of a sampler
    that differs from the trainer, by whose square verl scales W where they are on, are left out.
    """
    return grpo(low, high, kl_coef=0.0, group_size=group_size).replace(
        advantage=TokenBaseline(alone=alone), aggregate=TokenMean()
    )
