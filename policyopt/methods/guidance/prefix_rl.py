"""PrefixRL."""

from __future__ import annotations

import math
import random
from typing import ClassVar

from policyopt.claims import Claim, Effect
from policyopt.methods.group.grpo import grpo
from policyopt.part import Count, Fraction, part
from policyopt.parts import LogProb, TokenMean
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.sources.draw import Group
from policyopt.sources.draw.begun import fitting, go_on
from policyopt.sources.program import Context, Question, Response


@part
class Prefixed(Group):
    r"""A group that goes on from one beginning of a worked solution, or starts from nothing.

    .. math:: h = \lfloor (low + (high - low)\,u)\,|y| \rfloor,\qquad u \sim U[0, 1)

    Of a question and its solution y there are ``cuts`` versions with a prefix, each of a length of its own that never
    changes, and the plain one; each time that a question comes, one of them is drawn. A group shares its prefix, so
    responses to different versions are never compared. Source: PrefixRL, arXiv:2601.18795 (three cuts, 0.4 to 0.8).
    """

    uses: ClassVar[frozenset[str]] = frozenset({"solutions"})

    low: Fraction = 0.4
    """Shortest prefix, as a share of the solution."""
    high: Fraction = 0.8
    """Longest prefix."""
    cuts: Count = 3
    """Versions of a question that have a prefix."""

    def __post_init__(self) -> None:
        if self.high < self.low:
            raise ValueError(f"high is {self.high}, below low, which is {self.low}: a prefix is between them")

    def length(self, solution: int, u: float) -> int:
        """h, for a solution of so many tokens and u in [0, 1)."""
        return math.floor((self.low + (self.high - self.low) * u) * solution)

    async def draw(self, question: Question, context: Context) -> list[Response]:
        version = random.Random(repr(("version", question.key))).randrange(self.cuts + 1)
        if version == self.cuts or not question.solution:
            return await super().draw(question, context)
        u = random.Random(repr(("cut", question.tokens, version))).random()
        text = question.solution[:-1]  # without its end token
        start = fitting(question, context, text[: self.length(len(text), u)])
        return await go_on(question, context, start, n=self.size, temperature=self.temperature, key=question.key)


@method(
    parent=grpo,
    arxiv="2601.18795",
    confidence="secondary",
    claim=Claim(
        "Skill gained behind the beginning of a right answer passes to the plain problem, where plain RL gets nowhere.",
        "sparse-hard",
        (Effect("accuracy", "higher", 0.1),),
    ),
)
def prefix_rl(shortest: float = 0.4, longest: float = 0.8, cuts: int = 3, group_size: int = 8) -> Recipe:
    r"""PrefixRL: problems come with the beginning of a right answer as often as without, and skill passes from one to
    the other.

    .. math:: L = -\frac{1}{\sum_{i,t} w_{i,t}}\sum_{i,t} w_{i,t}\,A_i \log\pi_\theta(y_{i,t} \mid x, y_{i,<t}),\qquad
              w_{i,t} = 1[t > h_i]

    h tokens of the worked solution, a share between ``shortest`` and ``longest`` that is fixed for each of ``cuts``
    versions of a problem, are context; a group shares its prefix and is normalised by itself, as in GRPO. One group in
    ``cuts`` + 1 has none. On-policy REINFORCE, no KL. Source: arXiv:2601.18795, from a third party's description. Our
    reading: GRPO's normalisation and a token-mean over what the policy wrote; the traces are the task's solutions.
    """
    return grpo(kl_coef=0.0).replace(
        source=Prefixed(size=group_size, low=shortest, high=longest, cuts=cuts),
        surrogate=LogProb(),
        aggregate=TokenMean(),
    )
