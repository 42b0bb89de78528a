"""CLPO."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.data.sums import added_first, reordered, shuffled
from policyopt.data.words import DIVERSIFY, SIMPLIFY, rewriting
from policyopt.methods.group.grpo import grpo
from policyopt.part import Count, Fraction, NonNegative, Part, part
from policyopt.parts import BySource, MixedOutcomes, TokenMean
from policyopt.parts.regularizer.kl import KL
from policyopt.recipe import Recipe, Update
from policyopt.registry import method
from policyopt.rows import Batch
from policyopt.sources.draw import Group
from policyopt.sources.draw.request import reply
from policyopt.sources.program import Context, Question, Response


@part
class KLByDifficulty(KL):
    r"""The same penalty, weaker or stronger on the rows of hard prompts.

    .. math:: k_i = c_h \text{ where } \mathrm{acc}_i \le \tau,\quad c_n \text{ elsewhere}

    acc is ``pass_rate``: what the policy makes of the prompt as it was asked, also on rows that answer it in other words.
    Source: CLPO, arXiv:2509.25004, and the authors' code (csuking/CLPO).
    """

    upper: Fraction = 0.3
    """tau, the largest pass rate of a hard prompt."""
    hard: NonNegative = 0.5
    """c_h."""
    other: NonNegative = 1.0
    """c_n."""

    @property
    def needs(self) -> frozenset[str]:
        """The pass rate too."""
        return super().needs | {"pass_rate"}

    def picked(self, batch: Batch) -> Tensor:
        """k, [N]."""
        picked = super().picked(batch)
        return picked * torch.where(batch.pass_rate <= self.upper, self.hard, self.other).to(picked)


Label = Literal["hard", "medium", "easy"]


Kind = Literal["simplify", "diversify"]
"""What a rewrite is for: to be understood better, or to say the same in another way."""


KINDS: Mapping[Label, Kind] = {"hard": "simplify", "medium": "diversify"}
"""How the questions of each difficulty are written anew; easy ones are not."""


class Rewriter(Part):
    """Writes the question of a prompt anew; ``None`` where nothing of use came out."""

    async def __call__(self, question: Question, context: Context, kind: Kind) -> str | None:
        raise NotImplementedError


@part
class PolicyRewriter(Rewriter):
    """The policy writes the question anew, in the first fence of what it answers to a request, or in all of it.

    A rewrite of another length than was asked for is of no use, nor is one that gives away the answer. Source: CLPO,
    arXiv:2509.25004, and the authors' code (csuking/CLPO): temperature 0.7, 400 tokens, 11 to 1999 characters. Our
    reading: 4 characters are enough, for short questions; the request, which has to name the answer for it to be kept,
    is ours, and that it must not be given away is looked after (there it is only asked for).
    """

    simplify: str = SIMPLIFY
    """What is asked about hard questions."""
    diversify: str = DIVERSIFY
    """What is asked about middling ones."""
    temperature: Annotated[float, Field(ge=0, le=10)] = 0.7
    """Sampling temperature of the rewrite."""
    tokens: Count = 400
    """Longest rewrite in tokens, all that is written around it included."""
    shortest: Count = 4
    """Shortest rewrite in characters."""
    longest: Count = 2000
    """Longest rewrite in characters."""
    hide: bool = True
    """Whether a rewrite in which the answer stands, unless the question had it, is of no use."""

    async def __call__(self, question: Question, context: Context, kind: Kind) -> str | None:
        request = self.request(question, kind)
        written = await reply(
            question, context, request, tokens=self.tokens, temperature=self.temperature, key=(*question.key, -1)
        )
        text = fenced(written or "")
        if not self.shortest <= len(text) <= self.longest:
            return None
        told = self.hide and stands(question.answer, text) and not stands(question.answer, question.text)
        context.count(rewrites_telling=told)
        return None if told else text

    def request(self, question: Question, kind: Kind) -> str:
        """What the policy is asked."""
        return rewriting(question.text, question.answer, self.simplify if kind == "simplify" else self.diversify)


@part
class Restructured(Group):
    """A group, and for a hard or middling question as many answers to another wording of it.

    The share of right answers says how hard the question is. Answers to the new wording have ``origin`` 1; they are
    read and trained on behind it, and judged as answers to the question as the task has it. Where nothing of use was
    written, or it leaves no room for a response, the group stands alone. The log counts rewrites that were asked for,
    that were used, and that were answered both right and wrong. Source: CLPO, arXiv:2509.25004, and the authors' code
    (csuking/CLPO).
    """

    hard: Fraction = 0.3
    """Largest share of right answers of a hard question."""
    medium: Fraction = 0.7
    """Largest share of a middling one."""
    rewrite: Literal["both", "hard", "medium", "none"] = "both"
    """Which questions are written anew."""
    rewriter: Rewriter = PolicyRewriter()
    """Who writes them."""

    uses: ClassVar[frozenset[str]] = frozenset({"judge"})

    def __post_init__(self) -> None:
        if self.medium < self.hard:
            raise ValueError(f"medium is {self.medium}, below hard, which is {self.hard}: it is the larger share")

    def difficulty(self, accuracy: float) -> Label:
        """How hard a question is."""
        if accuracy <= self.hard:
            return "hard"
        return "medium" if accuracy <= self.medium else "easy"

    def kind(self, label: Label) -> Kind | None:
        """How such a question is written anew; ``None`` where it is not."""
        return KINDS.get(label) if self.rewrite in ("both", label) else None

    async def draw(self, question: Question, context: Context) -> list[Response]:
        group = await super().draw(question, context)
        right = [verdict.correct for verdict in await context.judge(group) if verdict.rewarded]
        if not right:  # nobody knows how hard it is
            return group
        label = self.difficulty(sum(right) / len(right))
        kind = self.kind(label)
        text = None if kind is None else await self.rewriter(question, context, kind)
        tokens = None if text is None else context.asked(text)
        asked, used = kind is not None, tokens is not None
        context.count(**{f"{name}_prompts": name == label for name in ("hard", "medium", "easy")})
        context.count(rewrites_asked=asked, rewrites_used=used, rewrites_mixed=0)
        if tokens is None:
            return group
        other = await context.sampler.generate(
            tokens, n=self.size, max_tokens=question.budget, temperature=self.temperature, key=(*question.key, -2)
        )
        for response in other:
            response.origin, response.context = 1, tokens
        context.count(rewrites_mixed=len({v.correct for v in await context.judge(other) if v.rewarded}) == 2)
        return [*group, *other]


_FENCE = re.compile(r"```(?:\w*\n)?(.*?)(?:```|\Z)", re.DOTALL)


@part
class ReorderedSum(Rewriter):
    """The first sum of whole numbers in the question with its terms in another order; the answer cannot change.

    Simpler is to add first and subtract after: running totals stay above 0 as long as they can. For variety any other
    order will do, with an added term first; it follows from the prompt's key. Nothing of use where there is no sum, or
    no other order.
    """

    async def __call__(self, question: Question, context: Context, kind: Kind) -> str | None:
        order = added_first if kind == "simplify" else shuffled(repr(("reorder", question.key)))
        return reordered(question.text, order)


def fenced(text: str) -> str:
    """What stands in the first fence of a text, or all of it, without space around it."""
    fence = _FENCE.search(text)
    return (fence[1] if fence else text).strip()


def stands(word: str, text: str) -> bool:
    """Whether a text holds a word or number, not as a part of another one."""
    return bool(word) and re.search(rf"(?<![\w.]){re.escape(word)}(?!\w|\.\d)", text) is not None


@method(
    parent=grpo,
    arxiv="2509.25004",
    code="csuking/CLPO",
    confidence="code",
    claim=Claim(
        "The policy's own rewrites of what it fails at teach it more than the questions alone do.",
        "requests:chain_sum",
        (Effect("accuracy", "higher", 0.02),),
        both={"steps": 10},
        ours={"group-size": 8},
    ),
)
def clpo(
    hard_upper: float = 0.3,
    medium_upper: float = 0.7,
    rewrite: Literal["both", "hard", "medium", "none"] = "both",
    rewriter: Literal["policy", "reorder"] = "policy",
    low: float | None = 0.2,
    high: float | None = 0.2,
    kl_coef: float = 0.001,
    kl_scale_hard: float = 0.5,
    kl_scale_other: float = 1.0,
    minibatches: int = 1,
    group_size: int = 4,
) -> Recipe:
    r"""Curriculum-guided Learning for Policy Optimization: the policy rewrites what it fails at, and learns from its
    answers to that too.

    .. math:: L = \frac{1}{\sum_i|y_i|}\sum_{i,t}\max(-r_{i,t}A_i, -\mathrm{clip}(r_{i,t}, 1\pm\epsilon)A_i)
              + \beta c_i\,k3_{i,t},\qquad c_i = c_h\ (acc_i \le \tau_h),\ c_n \text{ elsewhere}

    acc is the share of right answers to a prompt. Up to ``hard_upper`` the question is rewritten to be simpler, up to
    ``medium_upper`` to be different, and a second group answers the rewrite, judged against the original answer. Each
    group is compared with itself and kept where it has right and wrong answers: the answers to a failed prompt go, those
    to its rewrite may stay. Source: arXiv:2509.25004, first version, and the authors' code, with 8 updates per rollout
    (``minibatches``). The second version trains the rewriting too, which the code does not have. Our reading: what the
    judge calls right counts, where the code takes a reward above 0. A small policy writes few rewrites that can be
    learned from: the metric ``rollout/rewrites_mixed`` counts them. ``rewriter="reorder"`` puts the terms of sums in
    another order instead.
    """
    writers = {"policy": PolicyRewriter(), "reorder": ReorderedSum()}
    penalty = KLByDifficulty(coef=kl_coef, upper=hard_upper, hard=kl_scale_hard, other=kl_scale_other)
    return grpo(low, high, kl_coef=0.0).replace(
        source=Restructured(
            size=group_size, hard=hard_upper, medium=medium_upper, rewrite=rewrite, rewriter=writers[rewriter]
        ),
        filter=(MixedOutcomes(per_source=True),),
        advantage=BySource(),
        aggregate=TokenMean(),
        regularizers=(penalty,) if kl_coef else (),
        update=Update(minibatches=minibatches),
    )
