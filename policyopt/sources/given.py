"""Rows from texts that the task brings: nothing is drawn and nothing judged."""

from __future__ import annotations

from typing import ClassVar, Literal

from policyopt.items import Verdict
from policyopt.part import part
from policyopt.sources.program import Context, Question, Response
from policyopt.sources.source import Source


@part
class Given(Source):
    """Texts that others wrote. ``old_logp`` of their rows is what the policy thinks of them when they are taken."""

    needs: ClassVar[frozenset[str]] = frozenset({"rollout_logp"})  # makes old_logp the trainer's own number

    def row(self, question: Question, context: Context, name: str, reward: float) -> Response:
        """One text as a response of a given reward. It is cut at the budget, and counted."""
        tokens = list(question.given[name][: question.budget])
        whole = len(tokens) == len(question.given[name])
        if not whole:
            context.count(texts_cut=1)
        nothing = [0.0] * len(tokens)
        said = Verdict(reward, reward > 0, True, name)
        return Response(
            tokens, nothing, list(nothing), "eos" if whole else "length", temperature=self.temperature, verdict=said
        )


@part
class Demonstrations(Given):
    """One row for each prompt: the completion that the task brings, with reward 1."""

    reads: ClassVar[frozenset[str]] = frozenset({"completion"})

    size: Literal[1] = 1
    """Rows for one prompt."""

    async def draw(self, question: Question, context: Context) -> list[Response]:
        return [self.row(question, context, "completion", 1.0)]


@part
class PreferencePairs(Given):
    """Two rows for each prompt, of one group: the text that was chosen (``chosen`` 1, reward 1) and the one that was
    rejected (``chosen`` 0, reward 0)."""

    reads: ClassVar[frozenset[str]] = frozenset({"chosen", "rejected"})
    provides: ClassVar[frozenset[str]] = frozenset({"chosen"})

    size: Literal[2] = 2
    """Rows for one prompt."""

    async def draw(self, question: Question, context: Context) -> list[Response]:
        rows = [self.row(question, context, "chosen", 1.0), self.row(question, context, "rejected", 0.0)]
        for row, side in zip(rows, (1.0, 0.0), strict=True):
            row.columns["chosen"] = side
        return rows


@part
class Triples(PreferencePairs):
    """The pair of each prompt, and a third row of the same group that stands in no pair: the text that the task brings as
    ``completion`` (``origin`` 1, reward 0)."""

    reads: ClassVar[frozenset[str]] = frozenset({"completion", "chosen", "rejected"})

    size: Literal[3] = 3  # type: ignore[assignment]
    """Rows for one prompt."""

    async def draw(self, question: Question, context: Context) -> list[Response]:
        third = self.row(question, context, "completion", 0.0)
        third.origin, third.columns["chosen"] = 1, 0.0
        return [*await super().draw(question, context), third]
