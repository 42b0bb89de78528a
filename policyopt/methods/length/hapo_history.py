"""HAPO, history-aware."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.groups import group_max, group_sum
from policyopt.methods.group.grpo import grpo
from policyopt.part import Finite, Memory, NonNegative, part
from policyopt.parts import AmongPool, Correctness, LengthReward, LengthScale
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch


@part
class RightLengths(Memory):
    r"""How short the right responses to a prompt have been, and how many there were: :math:`(h, n)`; h is NaN while n is 0.

    h is the shortest of all, or their mean over all visits. Wrong responses change neither. Source: HAPO, arXiv:2505.11225, and the
    authors' code (HCY123902/HAPO), which has both.
    """

    record: Literal["min", "mean"] = "min"
    """Which of the two h is."""

    width: ClassVar[int] = 2
    needs: ClassVar[frozenset[str]] = frozenset({"correct", "history"})

    def __call__(self, batch: Batch) -> Tensor:
        length, right = batch.length().to(batch.reward), (batch.correct > 0.5).to(batch.reward)
        known = batch.history is not None
        before = batch.history[:, 0] if known else torch.full_like(length, torch.nan)
        count = batch.history[:, 1].nan_to_num(0.0) if known else torch.zeros_like(length)
        new = group_sum(right, batch.group)
        if self.record == "min":
            here = -group_max(torch.where(right > 0, -length, -torch.inf), batch.group)
            record = torch.minimum(before.nan_to_num(torch.inf), here)
        else:
            total = count * before.nan_to_num(0.0) + group_sum(right * length, batch.group)
            record = total / (count + new).clamp(min=1)
        return torch.stack([torch.where(count + new > 0, record, torch.nan), count + new], dim=1)


@part
class OwnRecord(LengthScale):
    """So many times the length that the memory :class:`RightLengths` holds of the prompt, as it was before this batch; none on a prompt
    that has never been answered right."""

    first: NonNegative = 0.0
    """Where the curve begins, in records."""
    last: NonNegative = 2.0
    """Where it ends."""

    needs: ClassVar[frozenset[str]] = frozenset({"history"})

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        record = batch.history[:, 0]
        return self.first * record, self.last * record


@method(
    parent=grpo,
    arxiv="2505.11225",
    code="HCY123902/HAPO",
    confidence="code",
    claim=Claim(
        "Right answers that are shorter than any before them are worth more, and those that are longer less: answers become shorter, and as many "
        "are right.",
        "verbose",
        (Effect("length", "lower", 10.0), Effect("accuracy", "higher", -0.02)),
        against="grpo",
        ours={"pool": 32},
        theirs={"kl-coef": 0.0},
    ),
)
def hapo_history(
    curve: Literal["cosine", "linear"] = "cosine", record: Literal["min", "mean"] = "min", w: float = 1.0, floor: Finite = -0.7,
    tolerance: float = 0.1, pool: int | None = None, low: float | None = 0.2, high: float | None = 0.2, kl_coef: float = 0.0, group_size: int = 8,
) -> Recipe:  # fmt: skip
    r"""History-Aware Policy Optimization: each prompt remembers its shortest right response, and right answers are paid for beating it.

    .. math:: R = c + w\,r_{len},\qquad f = \cos\Big(\frac{\pi}{2}\min\big(\tfrac{|y|}{h}, 2\big)\Big),\qquad r_{len} = \begin{cases}\max(f, -0.7) & c = 1\\
              \min(f, 0) & c = 0\end{cases}

    h is the prompt's record before this batch (:class:`RightLengths`); on its first visit r_len is 0, as in GRPO. A wrong answer is never paid
    for being short. Short of h the reward is above that of a right answer, at h it is that, and it is held at the ``floor`` from 1.49 h on. ``curve`` "linear" is
    the authors' other one: 1 - l/h below h, 0 up to (1 + ``tolerance``) h, falling by one for each further h. It needs prompts that come again: data in
    passes, or a ``pool`` of so many prompts of a task without end. Source: arXiv:2505.11225 and the authors' code, whose groups have 2 responses; w 1. Their penalty for repetition,
    off by default, is not here.
    """
    if curve == "cosine":
        lengths: tuple[LengthReward, ...] = (
            LengthReward(
                coef=w,
                curve="cosine",
                reference=OwnRecord(),
                right=(1.0, -1.0),
                wrong=(1.0, -1.0),
                floor=floor,
                cap=0.0,
            ),
        )
    else:
        longer = OwnRecord(first=1 + tolerance, last=2 + tolerance)
        lengths = (
            LengthReward(coef=w, reference=OwnRecord(last=1.0), right=(1.0, 0.0), label="shorter"),
            LengthReward(coef=w, reference=longer, right=(0.0, -1.0), wrong=(0.0, -1.0), floor=floor, label="longer"),
        )
    return grpo(low, high, kl_coef=kl_coef, group_size=group_size).replace(
        shape=(Correctness(wrong=0.0), *lengths), memory=RightLengths(record=record), curriculum=AmongPool(pool=pool) if pool else None,
    )  # fmt: skip
