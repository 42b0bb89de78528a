"""KDRL."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, Literal

from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.control import Schedule
from policyopt.errors import UserError, nearest
from policyopt.groups import group_sum
from policyopt.methods.group.grpo import grpo
from policyopt.part import Unit, part
from policyopt.parts import Judged, RatioTimesAdvantage, RowSelector, TokenMean
from policyopt.parts.regularizer.kl import KL
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch


@part
class Unsolved(RowSelector):
    """The rows of prompts to which no row of the mini-batch is right."""

    needs: ClassVar[frozenset[str]] = frozenset({"correct"})
    unit: ClassVar[Unit] = "group"

    def __call__(self, batch: Batch) -> Tensor:
        return group_sum(batch.correct, batch.group) < 0.5


Rows = Literal["all", "wrong", "unsolved"]
ROWS: Mapping[Rows, RowSelector | None] = {"all": None, "wrong": Judged(right=False), "unsolved": Unsolved()}
"""The rows that the teacher speaks to."""


@method(
    parent=grpo,
    arxiv="2506.02208",
    confidence="secondary",
    claim=Claim(
        "A teacher's word on every token teaches where rewards are rare: more is learned than by GRPO from "
        "rewards alone.",
        "sparse-hard",
        (Effect("accuracy", "higher", 0.1),),
    ),
)
def kdrl(
    kl_coef: float = 5e-3,
    kl_min: float = 1e-3,
    kl_decay: float = 5e-5,
    kl: Literal["k2", "k3"] = "k2",
    rows: Rows = "all",
    group_size: int = 8,
) -> Recipe:
    r"""GRPO with a teacher in the place of the reference: rewards explore, the teacher says something about every token.

    .. math:: L = \frac{1}{\sum_i|y_i|}\sum_{i,t}\Big[-r_{i,t}A_i + \beta_s\,k_i\,\tfrac12\Big(\log\frac{\pi_T}{\pi_\theta}(y_{i,t})\Big)^2\Big],\qquad
              \beta_s = \max(\beta_0 - \delta s, \beta_{min})

    beta_0 = ``kl_coef``, beta_min = ``kl_min``, delta = ``kl_decay`` per step. On-policy the gradient of the k2 term is that
    of :math:`KL(\pi_\theta\|\pi_T)`. ``rows`` lets it fall on ``wrong`` answers, or on prompts without a right one, alone.
    Strictly on-policy, so no clip. Defaults: the annealed run of the paper, from third parties' accounts of
    arXiv:2506.02208. Our reading: one normaliser for both terms, masked or not; advantages divided by the std.
    Raises ``UserError`` for other ``rows``.
    """
    if rows not in ROWS:
        raise UserError(f"rows is {rows!r}, but the teacher speaks to one of {', '.join(ROWS)}; {nearest(rows, ROWS)}")
    steps = math.ceil((kl_coef - kl_min) / kl_decay) if kl_decay > 0 and kl_coef > kl_min else 0
    end = kl_coef - kl_decay * steps
    falling = Schedule(
        field="regularizers.KL.coef", start_value=kl_coef, end_value=end, steps=max(1, steps), least=kl_min
    )
    return grpo(None, None, group_size=group_size).replace(
        surrogate=RatioTimesAdvantage(),
        aggregate=TokenMean(),
        regularizers=(KL(coef=max(kl_coef, kl_min), estimator=kl, target="teacher", rows=ROWS[rows]),),
        controllers=(falling,) if steps else (),
    )
