"""The policy as referee of what it wrote itself."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from itertools import chain
from typing import ClassVar

from policyopt.parts.base import Count, Finite, Fraction, part
from policyopt.parts.rank import kendall_tau
from policyopt.rollout.base import Prompt, Response, Sampler
from policyopt.rollout.group import Group
from policyopt.tasks.answers import find_answer
from policyopt.tasks.base import Verdict
from policyopt.tasks.words import SCORE, judging

_SCORE = re.compile(r"(?<![\w.])-?\d{1,4}(?:\.\d{1,4})?(?![\w.])", re.ASCII)


def read_scores(text: str, count: int) -> list[float] | None:
    """The scores of so many candidates on a referee's answer line; None where it names another number of them."""
    found = [float(x) for x in _SCORE.findall(find_answer(text) or "")]
    return found if len(found) == count else None


@part
class PlayerAndReferee(Group):
    """A group of candidates, and the same policy's scores for them.

    The referee reads the question and all candidates and ends with one score for each. Where the task's judge tells the
    candidates apart, its ``judgings`` (``source`` 1, rows beside the group) earn Kendall's tau between their scores and
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

    needs: ClassVar[frozenset[str]] = frozenset()

    async def draw(self, prompt: Prompt, sampler: Sampler) -> list[Response]:
        drawn = await super().draw(prompt, sampler)
        gold = [v.score for v in await prompt.score(drawn)]
        context = self.context(prompt, drawn)
        if self.is_open(prompt):
            [judging] = await self._judge(prompt, sampler, context, 1)
            scores = self.read(prompt, judging, len(drawn)) or [0.0] * len(drawn)
            for response, score in zip(drawn, scores, strict=True):
                assert response.verdict is not None
                response.verdict = dataclasses.replace(response.verdict, score=score, reason="scored by the referee")
            return drawn
        if len(set(gold)) == 1:
            return drawn
        judgings = await self._judge(prompt, sampler, context, self.judgings)
        for response in judgings:
            response.verdict = self.verdict(self.read(prompt, response, len(drawn)), gold)
            response.source, response.context = 1, context
        return [*drawn, *judgings]

    def is_open(self, prompt: Prompt) -> bool:
        """Whether the referee scores this prompt: so many of every hundred in a row."""
        return (prompt.key[-1] * 61) % 100 < 100 * self.open_share

    def context(self, prompt: Prompt, drawn: Sequence[Response]) -> tuple[int, ...]:
        """The question, the candidates by number, and the request."""
        assert prompt.encode is not None, "this prompt comes without a tokenizer"
        candidates = [tuple(r.tokens[:-1] if r.finished else r.tokens) for r in drawn]
        return (*prompt.tokens, *chain.from_iterable(judging(candidates, prompt.encode, self.request)))

    def verdict(self, scores: Sequence[float] | None, gold: Sequence[float]) -> Verdict:
        """What a judging is worth."""
        if scores is None:
            return Verdict(self.invalid_reward, False, False, "no score for each candidate")
        tau = kendall_tau(scores, gold)
        return Verdict(tau, tau == 1, True, f"Kendall's tau {tau:.2f}")

    def read(self, prompt: Prompt, judging: Response, count: int) -> list[float] | None:
        """The scores that a judging ends with."""
        assert prompt.decode is not None, "this prompt comes without a tokenizer"
        return read_scores(prompt.decode(judging.tokens), count)

    async def _judge(self, prompt: Prompt, sampler: Sampler, context: tuple[int, ...], n: int) -> list[Response]:
        return await sampler.generate(
            context, n=n, max_tokens=prompt.budget, temperature=self.temperature, key=(*prompt.key, -2)
        )
