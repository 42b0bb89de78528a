"""UI-R1."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.groups import group_max, group_mean
from policyopt.methods.group.grpo import grpo
from policyopt.part import Finite, NonNegative, Shape, Unit, part
from policyopt.parts import WeightedSum
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch


@part
class DifficultyAdaptiveLength(Shape):
    r"""A reward for length by how hard the prompt is: right responses gain by being short, wrong ones lose less by being long.

    .. math:: R_i \leftarrow R_i + c\cdot\begin{cases}\max(-a\lambda_i + b, m) & i \text{ right}\\ \min(a_w\lambda_i - m, -m) & \text{else}\end{cases},\qquad
              \lambda_i = \frac{|y_i| - L_b}{L_b},\qquad L_b = p\,L_r + (1-p)\,L_{max}

    p is the share of right responses to the prompt, L_r their mean length in tokens, L_max the longest of all: where all are
    right the budget L_b is the mean length, where none is, the longest. Source: UI-R1-E, arXiv:2503.21620, and the authors'
    code (lll6gg/UI-R1), after DAST.
    """

    coef: NonNegative = 1.0
    """c."""
    slope: NonNegative = 0.5
    """a."""
    offset: Finite = 0.5
    """b: what a right response of the length of the budget gains."""
    slope_wrong: NonNegative = 0.9
    """a_w."""
    least: NonNegative = 0.1
    """m: least gain of a right response, and least loss of a wrong one."""
    full: Finite | None = None
    """A reward of at least this is right; None takes the judge's word, and the form."""

    unit: ClassVar[Unit] = "group"

    @property
    def needs(self) -> frozenset[str]:
        """The judge's word where it counts."""
        return frozenset({"correct", "formatted"}) if self.full is None else frozenset()

    def right(self, batch: Batch) -> Tensor:
        """[N] 1 on responses that are right in full."""
        if self.full is None:
            return ((batch.correct > 0.5) & (batch.formatted > 0.5)).to(batch.reward)
        return (batch.reward >= self.full).to(batch.reward)

    def __call__(self, batch: Batch) -> Batch:
        right, length = self.right(batch), batch.length().to(batch.reward)
        share, longest = group_mean(right, batch.group), group_max(length, batch.group)
        budget = share * group_mean(length, batch.group, right) + (1 - share) * longest
        gap = (length - budget) / budget.clamp(min=1)
        gain = (self.offset - self.slope * gap).clamp(min=self.least)
        loss = (self.slope_wrong * gap - self.least).clamp(max=-self.least)
        return batch.replace(reward=batch.reward + self.coef * torch.where(right > 0, gain, loss))


@method(
    parent=grpo,
    arxiv="2503.21620",
    code="lll6gg/UI-R1",
    confidence="code",
    claim=Claim(
        "A point for the right kind of action beside the one for its place gets both right sooner than the place alone.",
        "screen",
        (Effect("component/place", "higher", 0.02),),
        against="ui-r1",
        theirs={"kind": 0.0, "form": 0.0},
    ),
)
def ui_r1(
    kind: float = 1.0, place: float = 1.0, form: float = 1.0, length_coef: float = 0.0, low: float | None = 0.2,
    high: float | None = 0.2, kl_coef: float = 0.04, group_size: int = 8,
) -> Recipe:  # fmt: skip
    r"""GRPO with a reward by rule for what an action is, where it is done, and the form that it is told in.

    .. math:: R = 1[\hat a = a] + 1[\hat a = a]\,1[\hat p \in b]\ (\text{a click}) + 1[\text{form}]

    The judge, or the world, gives the parts ``kind`` (the action is of the right kind) and ``place`` (it is done in the right
    place, or is none that has a place): for data with boxes ``--judge policyopt.judging.boxes:judge_action``; one without parts
    keeps its score. ``length_coef`` 1 is UI-R1-E: its length term (:class:`DifficultyAdaptiveLength`) has responses to easy
    prompts grow shorter. Source: arXiv:2503.21620 and the authors' code (lll6gg/UI-R1): weights of 1, 8 responses, and GRPO's
    clip and KL as frameworks have them. Their 136 samples were picked beforehand: sound ones that the model failed on, all
    kinds of action.
    """
    longer = (DifficultyAdaptiveLength(coef=length_coef),) if length_coef else ()
    parts = (("kind", kind), ("place", place), ("formatted", form))
    return grpo(low, high, kl_coef, group_size=group_size).replace(shape=(WeightedSum(weights=parts), *longer))
