"""PALU."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.groups import group_mean
from policyopt.methods.group.grpo import grpo
from policyopt.part import Count, Fraction, Memory, NonNegative, part
from policyopt.parts import AmongPool, Correctness, TruncatedReward
from policyopt.parts.select.tokens import masked_quantile
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch
from policyopt.sources.draw import GroupWithinBudget


@part
class ShrinkingBudget(Memory):
    r"""How many tokens a response to a prompt may have at its next visit; 0 for as many as the run allows.

    .. math:: L \leftarrow L - (Q_1 - Q_{1-\tau}) \text{ where } \hat R \ge C,\qquad L \leftarrow L_{max} \text{ elsewhere}

    R-hat is the share of responses that were right within L, Q_p the p-quantile of their lengths, interpolated linearly: so many tokens less
    would have cost about a share tau of the successes. Where all are equally long L stays. Source: PALU, arXiv:2510.10168, from third
    parties' accounts. Our reading: a right answer beyond L has failed, and L is never below ``least``.
    """

    success: NonNegative = 0.8
    """C; above 1 no budget ever shrinks."""
    tau: Fraction = 0.5
    """tau."""
    least: Count = 1
    """The smallest budget."""

    needs: ClassVar[frozenset[str]] = frozenset({"correct"})

    def __call__(self, batch: Batch) -> Tensor:
        length, allowed = batch.length().to(batch.reward), batch.budget.to(batch.reward)
        right = (batch.correct > 0.5) & (length <= allowed)
        if batch.truncated is not None:
            right &= batch.truncated < 0.5
        same = right & (batch.group[:, None] == batch.group)
        most, kept = (masked_quantile(length.expand(same.shape), same, q) for q in (1.0, 1 - self.tau))
        step = (most - kept).nan_to_num(0.0, posinf=0.0)
        met = group_mean(right.to(length), batch.group) >= self.success
        return torch.where(met, (allowed - step).clamp(min=self.least), 0.0)[:, None]


@method(
    parent=grpo,
    arxiv="2510.10168",
    confidence="secondary",
    claim=Claim(
        "A budget for each prompt, as small as its successes allow: answers become shorter, and as many are right.",
        "verbose",
        (Effect("length", "lower", 10.0), Effect("accuracy", "higher", -0.02)),
        against="grpo",
        ours={"pool": 32},
        theirs={"kl-coef": 0.0},
    ),
)
def palu(
    success: float = 0.8, tau: float = 0.5, least: int = 1, pool: int | None = None, low: float | None = 0.2, high: float | None = 0.2,
    kl_coef: float = 0.0, group_size: int = 8,
) -> Recipe:  # fmt: skip
    r"""PALU: each prompt has a budget of tokens of its own, which shrinks while enough responses succeed within it and is restored where they do not.

    .. math:: \min_{\theta, L}\max_{\lambda\ge0}\; L + \lambda\,(C - P[\text{right within } L])

    with the multiplier at 0 or infinity: :class:`ShrinkingBudget`. Responses are cut at the budget that the visit before has left, and what is cut is wrong; the rest is
    GRPO with rewards of 0 and 1. Prompts have to come again: data in passes, or a ``pool`` of so many prompts of a task without end. ``success`` above 1 is GRPO. Source: arXiv:2510.10168, from third
    parties' accounts; C 0.8 and tau 0.5 are the paper's.
    """
    return grpo(low, high, kl_coef=kl_coef, group_size=group_size).replace(
        source=GroupWithinBudget(size=group_size),
        shape=(Correctness(wrong=0.0), TruncatedReward()),
        memory=ShrinkingBudget(success=success, tau=tau, least=least),
        curriculum=AmongPool(pool=pool) if pool else None,
    )
