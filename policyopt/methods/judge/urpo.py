"""URPO."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from itertools import chain, combinations
from typing import ClassVar

from policyopt.claims import Claim
from policyopt.data.words import SCORE, judging
from policyopt.items import Verdict
from policyopt.judging.answers import find_answer
from policyopt.methods.group.grpo import grpo
from policyopt.part import Count, Finite, Fraction, part
from policyopt.parts import BySource
from policyopt.recipe import Recipe, require
from policyopt.registry import method
from policyopt.sources.draw import Group
from policyopt.sources.program import Context, Question, Response


def kendall_tau(scores: Sequence[float], gold: Sequence[float]) -> float:
    r"""Agreement of two orders, :math:`\frac{2}{n(n-1)}\sum_{j<k}\mathrm{sign}(s_j - s_k)\,\mathrm{sign}(g_j - g_k)`, in [-1, 1].

    Ties count 0. Source: URPO, arXiv:2507.17515. Raises ``ValueError`` for lists of unlike length or of one entry.
    """
    if len(scores) != len(gold) or len(gold) < 2:
        raise ValueError(f"{len(scores)} scores for {len(gold)} candidates: expected as many, and at least two")

    def sign(x: float) -> int:
        return (x > 0) - (x < 0)

    pairs = list(combinations(range(len(gold)), 2))
    return sum(sign(scores[j] - scores[k]) * sign(gold[j] - gold[k]) for j, k in pairs) / len(pairs)


_SCORE = re.compile(r"(?<![\w.])-?\d{1,4}(?:\.\d{1,4})?(?![\w.])", re.ASCII)


def read_scores(text: str, count: int) -> list[float] | None:
    """The scores of so many candidates on a referee's answer line; None where it names another number of them."""
    scores = [float(x) for x in _SCORE.findall(find_answer(text) or "")]
    return scores if len(scores) == count else None


@part
class PlayerAndReferee(Group):
    """A group of candidates, and the same policy's scores for them.

    The referee reads the question and all candidates and ends with one score for each. Where the task's judge tells the
    candidates apart, its ``judgings`` (``origin`` 1, rows beside the group) earn Kendall's tau between their scores and
    the judge's, or ``invalid_reward`` where they cannot be read. A share of the prompts counts as open: there one
    judging takes the judge's place, and its scores are the candidates' rewards (0 where it cannot be read). Source:
    URPO, arXiv:2507.17515. Our reading: gold orders come from the judge; the referee's request follows the question in
    plain words, and what it scores is shuffled by the order in which it was drawn.
    """

    size: Count = 4
    """Candidates for one prompt."""
    judgings: Count = 4
    """Responses of the referee to one prompt."""
    open_share: Fraction = 0.0
    """Share of the prompts whose candidates the referee scores instead of the judge."""
    invalid_reward: Finite = -1.0
    """What a judging that cannot be read earns."""
    request: str = SCORE
    """What the referee is asked, after the candidates."""

    uses: ClassVar[frozenset[str]] = frozenset({"judge"})

    async def draw(self, question: Question, context: Context) -> list[Response]:
        drawn = await super().draw(question, context)
        verdicts = await context.judge(drawn)
        if self.is_open(question):
            asked = self.refereed(question, context, drawn)
            [judging] = await self._judge(question, context, asked, 1)
            scores = self.read(context, judging, len(drawn)) or [0.0] * len(drawn)
            for response, score in zip(drawn, scores, strict=True):
                assert response.verdict is not None
                response.verdict = dataclasses.replace(
                    response.verdict, score=score, reason="scored by the referee", failed=False, applies=True
                )
            return drawn
        judged = [r for r, v in zip(drawn, verdicts, strict=True) if v.rewarded]
        gold = [v.score for v in verdicts if v.rewarded]
        if len(set(gold)) < 2:
            return drawn
        asked = self.refereed(question, context, judged)
        judgings = await self._judge(question, context, asked, self.judgings)
        for response in judgings:
            response.verdict = self.verdict(self.read(context, response, len(judged)), gold)
            response.origin, response.context = 1, asked
        return [*drawn, *judgings]

    def is_open(self, question: Question) -> bool:
        """Whether the referee scores this prompt: so many of every hundred in a row."""
        return (question.key[-1] * 61) % 100 < 100 * self.open_share

    def refereed(self, question: Question, context: Context, drawn: Sequence[Response]) -> tuple[int, ...]:
        """The question, the candidates by number, and the request."""
        candidates = [tuple(r.tokens[:-1] if r.finished else r.tokens) for r in drawn]
        return (*question.tokens, *chain.from_iterable(judging(candidates, context.encode, self.request)))

    def verdict(self, scores: Sequence[float] | None, gold: Sequence[float]) -> Verdict:
        """What a judging is worth."""
        if scores is None:
            return Verdict(self.invalid_reward, False, False, "no score for each candidate")
        tau = kendall_tau(scores, gold)
        return Verdict(tau, tau == 1, True, f"Kendall's tau {tau:.2f}")

    def read(self, context: Context, judging: Response, count: int) -> list[float] | None:
        """The scores that a judging ends with."""
        return read_scores(context.decode(judging.tokens), count)

    async def _judge(self, question: Question, context: Context, asked: tuple[int, ...], n: int) -> list[Response]:
        return await context.sampler.generate(
            asked, n=n, max_tokens=question.budget, temperature=self.temperature, key=(*question.key, -2)
        )


@method(
    parent=grpo,
    arxiv="2507.17515",
    confidence="recalled",
    claim=Claim(
        "One model that plays and judges improves at both, and needs no reward model beside it.",
        beyond="The embedded model does not learn to judge: as a referee it stays near chance.",
    ),
)
def urpo(
    judgings: int = 4,
    open_share: float = 0.0,
    invalid_reward: float = -1.0,
    low: float | None = 0.2,
    high: float | None = 0.2,
    kl_coef: float = 0.04,
    group_size: int = 4,
) -> Recipe:
    r"""One model is player and referee: its scores for its own candidates are trained on too, and can be the reward.

    .. math:: R^{referee} = \tau(\hat s, g) = \frac{2}{n(n-1)}\sum_{j<k}\mathrm{sign}(\hat s_j - \hat s_k)\,\mathrm{sign}(g_j - g_k)

    Verifiable prompts give the player's reward and the gold order g that the referee has to find; on an ``open_share`` of
    the prompts the referee's scores are the player's rewards. GRPO for both, each compared with its own kind. Source:
    arXiv:2507.17515, recalled, not verified. Our reading: gold orders come from the judge of the task rather than from
    preference data; raise ``open_share`` once the referee is of use.
    """
    parent = grpo(low, high, kl_coef=kl_coef, group_size=group_size)
    return parent.replace(
        source=PlayerAndReferee(
            size=group_size, judgings=judgings, open_share=open_share, invalid_reward=invalid_reward
        ),
        advantage=BySource(inner=require(parent.advantage)),
    )
