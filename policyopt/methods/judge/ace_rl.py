"""ACE-RL."""

from __future__ import annotations

from typing import Any

import torch

from policyopt.claims import Claim
from policyopt.methods.group.grpo import grpo
from policyopt.part import Label, Shape, part
from policyopt.parts import LengthRange
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch


@part
class Checklist(Shape):
    r"""The mean of the components that apply to a row, in the place of the score: how much of the prompt's checklist is met.

    .. math:: R_i = \frac1{m_i}\sum_{j: c_{ij} \ne NaN} c_{ij}

    A judge gives one component for each constraint, NaN (``None``) where the prompt has no such one; a long checklist weighs as much as a short
    one, and an empty one is worth 0. A judge without components keeps its score. Source: ACE-RL, arXiv:2509.04903.
    """

    beside: tuple[Label, ...] = ()
    """Components that are no constraints, such as a number of the data."""

    def __call__(self, batch: Batch) -> Batch:
        found = [x for name, x in batch.members("component").items() if name not in self.beside]
        if not found:
            return batch
        said = torch.stack(found, dim=-1)
        met = said.nan_to_num(0.0).sum(-1) / (~said.isnan()).sum(-1).clamp(min=1)
        return batch.replace(reward=met)


@method(
    parent=grpo,
    arxiv="2509.04903",
    code="ZNLP/ACE-RL",
    confidence="abstract",
    claim=Claim(
        "A checklist made for each prompt, item by item, teaches long texts better than one score for the whole.",
        beyond="the gain is that of fine judgements over coarse ones by large models; the judges of these testbeds are exact",
    ),
)
def ace_rl(
    target: float | str | None = None,
    w_len: float = 0.5,
    low: float | None = 0.2,
    high: float | None = 0.2,
    kl_coef: float = 0.04,
    group_size: int = 8,
) -> Recipe:
    r"""Adaptive Constraint-Enhanced Reward: the share of a prompt's checklist that a response meets, and a reward for its length.

    .. math:: R_i = \frac1{m}\sum_{j=1}^m s_{ij} + w\,\max\Big(0, 1 - \frac{||y_i| - L|}{L}\Big),\qquad s_{ij} \in \{0, \tfrac12, 1\}

    The checklist is made once, by a large model, and travels with the prompt; a judge that gives ``parts`` says how far each item is met
    (``docs/judges.md``; ``None`` where it is none of this prompt's), and :class:`Checklist` takes the mean. ``target`` L is a number of tokens or the
    name of a part in which the judge gives it for each prompt; None leaves the length out, as where the task has none. The rest is
    GRPO. Source: arXiv:2509.04903, from its abstract and third parties. Our reading: levels of scores, equal weights of the items, the form
    of the length reward and its weight ``w_len``.
    """
    beside = (target,) if isinstance(target, str) else ()
    shape: tuple[Any, ...] = (Checklist(beside=beside),)
    if target is not None:
        shape += (LengthRange(coef=w_len, lower=target),)
    return grpo(low, high, kl_coef=kl_coef, group_size=group_size).replace(shape=shape)
