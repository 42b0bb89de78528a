"""Hints, for prompts that the policy fails at alone: beginnings of the worked solution, the weakest first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from policyopt.part import Fraction, part
from policyopt.sources.draw.begun import fitting, go_on
from policyopt.sources.draw.group import Group
from policyopt.sources.program import Context, Question, Response


def hint_length(solution: int, share: float) -> int:
    """How many of so many tokens a hint shows; a half is rounded to the even number."""
    return round(share * solution)


@part
class Hinted(Group):
    """A group, and a ladder of hints for the programs that give them to prompts without a right answer.

    A hint is the beginning of the response: it is read, judged with what follows, and never trained on. A prompt
    without a worked solution gets none.
    """

    uses: ClassVar[frozenset[str]] = frozenset({"judge", "solutions"})

    hints: tuple[Fraction, ...] = (0.25, 0.5, 0.75)
    """Shares of the worked solution that the hints show, the weakest first."""

    def __post_init__(self) -> None:
        if not self.hints or min(self.hints) == 0 or list(self.hints) != sorted(set(self.hints)):
            raise ValueError(f"hints are shares of a solution above 0, the weakest first, not {self.hints}")

    def ladder(self, question: Question, context: Context) -> list[tuple[int, ...]]:
        """The hints for a prompt. They leave one token of the budget, and the end token, to the policy."""
        text = question.solution[:-1]
        if not text:
            return []
        return [tuple(fitting(question, context, text[: hint_length(len(text), share)])) for share in self.hints]

    async def solved(self, context: Context, responses: Sequence[Response]) -> bool:
        """Whether one of the responses is right, or the judge gives none of them a reward: nobody knows then that help is
        needed."""
        judged = [verdict for verdict in await context.judge(responses) if verdict.rewarded]
        return not judged or any(verdict.correct for verdict in judged)

    async def hinted(
        self, question: Question, context: Context, hint: tuple[int, ...], *, n: int, key: tuple[int, ...]
    ) -> list[Response]:
        """Responses that begin with a hint."""
        return await go_on(question, context, hint, n=n, temperature=self.temperature, key=key)


@part
class Redraw(Hinted):
    """A group; where all of it is wrong, another one from the weakest hint, and so on up the ladder.

    All responses of the group that is returned had the same hint: the first with which one was right, or the strongest.
    Sources: GHPO, arXiv:2507.10628, and the authors' code (hkgc-1/GHPO); Kwai Keye-VL 1.5, arXiv:2509.01563.
    """

    async def draw(self, question: Question, context: Context) -> list[Response]:
        group = await super().draw(question, context)
        if await self.solved(context, group):
            return group
        for level, hint in enumerate(self.ladder(question, context), 1):
            group = await self.hinted(question, context, hint, n=self.size, key=(*question.key, level))
            if await self.solved(context, group):
                break
        return group
