"""Best of N: RAFT and RAFT++."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.methods.baseline.reinforce import reinforce
from policyopt.part import Advantage, Finite, Wrapper, part
from policyopt.parts import BestResponse, LogProb, PPOClip, RowSelector, TokenMean
from policyopt.parts.select.rows import picked
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch, masked


@part
class AtLeast(RowSelector):
    """The responses whose reward is a threshold or more."""

    reward: Finite = 1.0
    """The threshold."""

    def __call__(self, batch: Batch) -> Tensor:
        return batch.total_reward() >= self.reward


@part
class OnRows(Wrapper, Advantage):
    """1 on every token of the rows that a selector picks, 0 on the others."""

    rows: RowSelector = BestResponse()
    """Which rows."""

    around: ClassVar[str] = "rows"

    def __call__(self, batch: Batch) -> Tensor:
        return masked(picked(self.rows, batch)[:, None].expand_as(batch.mask), batch.mask)


@method(
    parent=reinforce,
    arxiv="2304.06767",
    code="RLHFlow/Minimal-RL",
    confidence="secondary",
    claim=Claim(
        "Training on right responses alone, without any negative, learns fast at first, and nearly as much as GRPO.",
        "chain_sum",
        (Effect("accuracy", "higher", -0.05),),
        against="grpo",
        ours={"threshold": 1.0, "variant": "raft++"},
        theirs={"kl-coef": 0.0},
        both={"steps": 20},
    ),
)
def best_of_n(
    variant: Literal["raft", "raft++"] = "raft",
    threshold: float | None = None,
    clip_low: float | None = 0.2,
    clip_high: float | None = 0.2,
    group_size: int = 4,
) -> Recipe:
    r"""Rejection-sampling fine-tuning: the best of some responses to each prompt is made likely (RAFT).

    .. math:: L = -\frac{1}{\sum_{i\in K}|y_i|}\sum_{i\in K}\sum_t\log\pi_\theta(y_{i,t})

    K holds the response to each prompt with the highest reward or, with ``threshold``, every response whose reward is at least that.
    ``raft++`` has PPO's clipped ratio on the same rows, A = 1 on K and 0 on the others, which count in the divisor:
    :math:`-\frac{1}{\sum_i|y_i|}\sum_{i,t}\min(r_{i,t}A_i, \mathrm{clip}(r_{i,t}, 1-\epsilon_l, 1+\epsilon_h)A_i)`; it uses a batch for several
    steps (``--recipe.update.minibatches``). No response is ever made less likely on purpose, and the entropy falls faster than with
    negatives. Both teach the policy to answer like the best of its N responses; how good these are, and how far away in KL, at most
    :math:`\log N - (N-1)/N`, is logged by ``--with alignment-asymptotics``. :func:`bonbon` goes there with the worst response too.

    Sources: RAFT, arXiv:2304.06767; RAFT++, arXiv:2504.11343, and its code (4 responses, learning rate 1e-6; there a KL of 0.001
    besides, which ``--recipe.regularizers`` adds); best of n: arXiv:2401.01879. Our reading: of equal rewards the first response is kept.
    """
    rows = BestResponse() if threshold is None else AtLeast(reward=threshold)
    credited = reinforce(baseline="none", group_size=group_size).replace(
        advantage=OnRows(rows=rows), aggregate=TokenMean()
    )
    if variant == "raft":
        return credited.replace(select=(rows,), ratio=None, surrogate=LogProb())
    return credited.replace(surrogate=PPOClip(low=clip_low, high=clip_high))
