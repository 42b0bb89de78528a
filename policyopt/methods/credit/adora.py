"""ADORA."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.groups import group_max, group_mean, group_sum
from policyopt.methods.group.grpo import grpo
from policyopt.part import Finite, NonNegative, Unit, part
from policyopt.parts import RowWeight, Weighed
from policyopt.recipe import Recipe, require
from policyopt.registry import method
from policyopt.rows import Batch

Empty = Literal["llm", "vlm"]


@part
class LongPays(RowWeight):
    r"""Prompts count fully while their longest right answer is longer than their mean wrong one, and less otherwise.

    .. math:: w_q = 1 \text{ where } \max_{R_i > \tau} L_i > \mathrm{mean}_{R_i \le \tau,\, L_i < L_{max}} L_i,\qquad \text{else } \lambda

    L are lengths in tokens, L_max the budget: a wrong response that fills it does not count. Where one side is empty the two
    released programs differ: ``llm`` has lambda without a right answer, and 1 without a wrong one; ``vlm`` has 1 without a right answer, and
    lambda without a wrong one. Source: ADORA, the authors' code (ShadeCloak/ADORA).
    """

    threshold: Finite = 0.5
    """tau: rewards above it are right."""
    otherwise: NonNegative = 0.1
    """lambda."""
    empty: Empty = "llm"
    """What holds where there is no right answer, or no wrong one."""

    unit: ClassVar[Unit] = "group"

    def __call__(self, batch: Batch) -> Tensor:
        length, right = batch.length().to(batch.reward), batch.reward > self.threshold
        wrong = (~right & (length < batch.budget)).to(length)
        longest = group_max(torch.where(right, length, -math.inf), batch.group)
        none = -math.inf if self.empty == "llm" else math.inf
        mean = torch.where(group_sum(wrong, batch.group) > 0, group_mean(length, batch.group, wrong), none)
        full = longest > mean
        if self.empty == "vlm":
            full = full | (longest == -math.inf)
        return torch.where(full, torch.ones_like(length), self.otherwise)


@method(
    parent=grpo,
    code="ShadeCloak/ADORA",
    confidence="code",
    claim=Claim(
        "Prompts on which long reasoning pays now count more than the others: more is solved than with GRPO.",
        "mixed-difficulty",
        (Effect("accuracy", "higher", 0.01), Effect("length/mean", "higher", 0.5)),
        theirs={"kl-coef": 0.001},
    ),
)
def adora(
    correct_threshold: float = 0.5,
    damping: float = 0.1,
    variant: Empty = "llm",
    low: float | None = 0.2,
    high: float | None = 0.2,
    kl_coef: float = 0.001,
    group_size: int = 8,
) -> Recipe:
    r"""Dynamic advantage estimation: GRPO in which prompts count less while long reasoning does not pay on them.

    .. math:: A_i \leftarrow w_{q(i)} A_i,\qquad w_q \in \{1, \lambda\}

    w is 1 where the longest right answer to the prompt is longer than its mean wrong one (:class:`LongPays`), else lambda =
    ``damping``. The rule is a part of its own: any other one that gives a number for each row takes its place, as in
    ``--recipe.advantage.by``. Source: the authors' code (ShadeCloak/ADORA); there rewards above 1.01 are right where form is
    rewarded too (``llm``), above 0.5 elsewhere (``vlm``). Our reading: the limit of lengths is the budget of the run, where theirs is a
    little below it.
    """
    parent = grpo(low, high, kl_coef, group_size=group_size)
    rule = LongPays(threshold=correct_threshold, otherwise=damping, empty=variant)
    return parent.replace(advantage=Weighed(of=require(parent.advantage), by=rule))
