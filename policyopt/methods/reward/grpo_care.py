"""GRPO-CARE."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.groups import group_mean
from policyopt.methods.group.grpo import grpo
from policyopt.part import Finite, Fraction, NonNegative, Shape, Span, Unit, part
from policyopt.parts import EMA, LastAnswer, Normalise, WeightedSum
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch


@part
class ConsistencyBonus(Shape):
    r"""A bonus for right responses whose own reasoning makes the answer as likely to the reference as that of their peers does.

    .. math:: p_i = \min\Big(\exp\frac{\sum_{t \in S_i}\log\pi_{ref}(y_{i,t})}{|S_i| + 10^{-6}},\; p_{max}\Big),\qquad
              R_i \leftarrow R_i + c\,a_i\,1[i \in C]\,1[p_i \ge \mathrm{mean}_C\,p - m],\qquad C = \{i : a_i > a_{min},\; a_i \ge \bar a\}

    S are the tokens of the answer, a says whether it is right, :math:`\bar a` is the mean of the group, C its right responses. How likely the reasoning is
    to the reference makes no difference. Source: GRPO-CARE, arXiv:2506.16141, and the authors' code (TencentARC/GRPO-CARE). Our reading: a response in which no answer
    is found is not in C; in the code one would have the highest confidence that there is, but nothing without answer tags is right there.
    """

    span: Span = LastAnswer()
    """S."""
    bonus: NonNegative = 0.5
    """c."""
    upper: Fraction = 0.95
    """p_max: answers that are surer than that compete no longer."""
    margin: Finite = 0.01
    """m."""
    least: Finite = 0.1
    """a_min."""

    unit: ClassVar[Unit] = "group"

    @property
    def needs(self) -> frozenset[str]:
        """What is right, what the reference says, and the span."""
        return frozenset({"correct", "ref_logp", self.span.column})

    def __call__(self, batch: Batch) -> Batch:
        return batch.replace(reward=batch.reward + self.paid(batch))

    def confidence(self, batch: Batch) -> Tensor:
        """p [N]."""
        answer = batch.span(self.span)
        total = torch.where(answer > 0, batch.ref_logp, 0.0).sum(-1)
        return (total / (answer.sum(-1) + 1e-6)).exp().clamp(max=self.upper)

    def paid(self, batch: Batch) -> Tensor:
        """The bonus of each row, [N]."""
        right, sure = batch.correct, self.confidence(batch)
        mean = group_mean(right, batch.group)
        peers = (right > self.least) & (right >= mean) & batch.shows(self.span)
        enough = sure >= group_mean(sure, batch.group, peers.to(sure)) - self.margin
        return torch.where(peers & enough, self.bonus * right, 0.0)


@method(
    parent=grpo,
    arxiv="2506.16141",
    code="TencentARC/GRPO-CARE",
    confidence="code",
    claim=Claim(
        "Reasoning and answer stay together: more of the answers follow from what was said before, and as many are right.",
        "biased-thought",
        (Effect("component/consistency", "higher", 0.02), Effect("accuracy", "higher", -0.02)),
    ),
)
def grpo_care(
    bonus: float = 0.5,
    upper: float = 0.95,
    margin: float = 0.01,
    format_weight: float = 1.0,
    decay: float = 0.995,
    every: int = 10,
    low: float | None = 0.2,
    high: float | None = 0.2,
    group_size: int = 8,
) -> Recipe:
    r"""Consistency-aware GRPO: among right responses, those whose reasoning makes the answer likely to a slow copy of the policy earn more.

    .. math:: R_i = a_i + w_f f_i + c\,a_i\,1[p_i \ge \mathrm{mean}_C\,p - m],\qquad
              \theta_{ref} \leftarrow \rho\,\theta_{ref} + (1 - \rho)\,\theta\;\text{ every } M \text{ steps}

    p is the likelihood of the answer under the slow copy after the response's own reasoning, C the right responses of the group
    (:class:`~policyopt.methods.reward.grpo_care.ConsistencyBonus`). It takes one pass of the reference over what was drawn, and stands in the place of the KL. With c = 0 it is GRPO without a KL on accuracy and
    format. p is taken at the temperature at which responses are drawn.

    Source: arXiv:2506.16141 and the authors' code (TencentARC/GRPO-CARE): c 0.5, p_max 0.95, m 0.01 (0 on the in-domain benchmark), rho 0.995, M 10, groups of 8, eps 1e-4. One update a batch, so that the clip,
    which the code has not, never acts.
    """
    return grpo(low, high, kl_coef=0.0, group_size=group_size).replace(
        shape=(
            WeightedSum((("correct", 1.0), ("formatted", format_weight))),
            ConsistencyBonus(bonus=bonus, upper=upper, margin=margin),
        ),
        advantage=Normalise(eps=1e-4),
        reference=EMA(decay=decay, every=every),
    )
