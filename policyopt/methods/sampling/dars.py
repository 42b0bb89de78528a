"""DARS."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

from policyopt.claims import Claim, Effect
from policyopt.methods.aggregation.dr_grpo import dr_grpo
from policyopt.part import Count, part
from policyopt.parts import MixedOutcomes
from policyopt.recipe import Recipe, Update
from policyopt.registry import method
from policyopt.sources.draw import Group
from policyopt.sources.program import Context, Question, Response


@part
class MoreForHard(Group):
    r"""A group, and further responses to prompts of which less than half were answered.

    .. math:: \Delta = \Big\lceil \frac{h\,A^* - N S(a)}{S(a)} \Big\rceil \le N_{max} - N

    N = ``size`` responses are drawn first; a is their accuracy (0 counts as 1/(2N)). S(a) is the sum of absolute
    advantages per response, 2a(1-a) for centred rewards or 2 sqrt(a(1-a)) for scaled ones, and A* = N S(1/2) its peak.
    h is 1 to bring all hard prompts to the peak, or 2(1-a) to bring the hardest beyond it. Source: DARS,
    arXiv:2508.13755, and the authors' code (yangzhch6/DARS).
    """

    most: Count = 32
    """N_max: most responses to a prompt."""
    target: Literal["equal", "hardness"] = "equal"
    """h: equal treatment (ET) or weighted by hardness (HW)."""
    scaled: bool = False
    """The advantage divides by the group's standard deviation."""

    uses: ClassVar[frozenset[str]] = frozenset({"judge"})

    def __post_init__(self) -> None:
        if self.most < self.size:
            raise ValueError(f"most is {self.most}, fewer than the {self.size} responses (size) that come first")

    def extra(self, accuracy: float) -> int:
        """How many responses are drawn in the second stage, given the accuracy of the first."""
        if accuracy >= 0.5:
            return 0
        a = accuracy or 1 / (2 * self.size)
        spread = 2 * math.sqrt(a * (1 - a)) if self.scaled else 2 * a * (1 - a)
        peak = self.size if self.scaled else self.size / 2
        hardness = 1.0 if self.target == "equal" else 2 * (1 - a)
        return min(math.ceil((hardness * peak - self.size * spread) / spread), self.most - self.size)

    async def draw(self, question: Question, context: Context) -> list[Response]:
        first = await super().draw(question, context)
        right = [v.correct for v in await context.judge(first) if v.rewarded]
        extra = self.extra(sum(right) / len(right)) if right else 0
        if extra == 0:
            return first
        key = (*question.key, 1)
        second = await context.sampler.generate(
            question.tokens, n=extra, max_tokens=question.budget, temperature=self.temperature, key=key
        )
        return [*second, *first]


@method(
    parent=dr_grpo,
    arxiv="2508.13755",
    code="yangzhch6/DARS",
    confidence="code",
    claim=Claim(
        "Hard prompts get so many more responses that they count: more is solved within several attempts, and as "
        "many at the first.",
        "mixed-difficulty",
        (Effect("pass@4", "higher", 0.01), Effect("accuracy", "higher", -0.01)),
        against="grpo",
        theirs={"kl-coef": 0.0},
    ),
)
def dars(
    target: Literal["equal", "hardness"] = "equal",
    most: int = 32,
    upper_threshold: float = 1.0,
    low: float | None = 0.2,
    high: float | None = 0.2,
    loss_norm: float | None = None,
    epochs: int = 1,
    minibatches: int = 1,
    group_size: int = 8,
) -> Recipe:
    r"""Difficulty Adaptive Rollout Sampling: hard prompts get so many more responses that their total advantage is no
    longer tiny.

    .. math:: A_i = R_i - \mathrm{mean}_{pool},\qquad \Delta N = \min\Big(\Big\lceil\frac{h N/2 - 2Na(1-a)}{2a(1-a)}\Big\rceil,
              N_{max} - N\Big) \text{ where } a < \tfrac12

    N = ``group_size`` responses tell the accuracy a of a prompt; h = 1 (``equal``) or 2(1 - a) (``hardness``, with
    ``most`` = 64 in the paper). Prompts whose pooled accuracy is 0 or at least ``upper_threshold`` are left out. Every
    response counts the same in the loss, so the further ones are not averaged away. DARS-B, its form with breadth, is a
    very large ``--batch`` with ``epochs`` 2 and one mini-batch. Source: arXiv:2508.13755; defaults from the authors' code.
    """
    return dr_grpo(low, high, loss_norm).replace(
        source=MoreForHard(size=group_size, most=most, target=target),
        filter=(MixedOutcomes(high=upper_threshold),),
        update=Update(epochs=epochs, minibatches=minibatches),
    )
