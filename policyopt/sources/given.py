"""Rows from texts that the task brings: nothing is drawn and nothing judged."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from policyopt.errors import UserError
from policyopt.items import Example, Verdict
from policyopt.part import Count, part
from policyopt.sources.program import Context, Question, Response
from policyopt.sources.source import Source

ColumnName = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$")]


@part
class Given(Source):
    """Texts that others wrote. ``old_logp`` of their rows is what the policy thinks of them when they are taken."""

    needs: ClassVar[frozenset[str]] = frozenset({"rollout_logp"})  # makes old_logp the trainer's own number
    fills: ClassVar[frozenset[str]] = frozenset()
    """The columns of a batch that it always fills."""
    sides: ClassVar[tuple[str, ...]] = ()
    """The names of the texts that each have numbers of their own."""

    columns: tuple[ColumnName, ...] = ()
    """Columns of the batch that are filled with numbers of the task: X with ``chosen_X`` or ``X_chosen`` on the chosen side, with
    ``rejected_X`` on the rejected one, or with ``X`` on all rows of the prompt."""

    @property
    def provides(self) -> frozenset[str]:
        """The columns that it fills."""
        return self.fills | frozenset(self.columns)

    def lacks(self, example: Example) -> str:
        there = example.numbers
        missing = ((column, side) for side in self.sides for column in self.columns if not _found(column, side, there))
        column, side = next(missing, ("", ""))
        return f"no number in {' or '.join(_names(column, side))}, for the column {column!r}" if column else ""

    def row(
        self, question: Question, context: Context, side: str, reward: float, tokens: Sequence[int] | None = None
    ) -> Response:
        """One text as a response of a given reward: that of the name ``side``, or ``tokens``. It is cut at the budget, and
        counted.

        Raises :class:`~policyopt.errors.UserError` where the task has no number for a column.
        """
        text = question.given[side] if tokens is None else tokens
        kept = list(text[: question.budget])
        whole = len(kept) == len(text)
        if not whole:
            context.count(texts_cut=1)
        nothing = [0.0] * len(kept)
        said = Verdict(reward, reward > 0, True, side)
        response = Response(
            kept, nothing, list(nothing), "eos" if whole else "length", temperature=self.temperature, verdict=said
        )
        for column in self.columns:
            name = _found(column, side, question.numbers)
            if not name:
                raise UserError(
                    f"{type(self).__name__} fills the column {column!r}, and a row of the task has no number in "
                    f"{' or '.join(_names(column, side))}"
                )
            response.columns[column] = question.numbers[name]
        return response


def _names(column: str, side: str) -> tuple[str, ...]:
    return (f"{side}_{column}", f"{column}_{side}", column)


def _found(column: str, side: str, there: object) -> str:
    """Under which name the number of a column stands for one side; ``""`` where it does not."""
    return next((name for name in _names(column, side) if name in there), "")  # type: ignore[operator]


@part
class Demonstrations(Given):
    """One row for each prompt: the completion that the task brings, with reward 1."""

    reads: ClassVar[frozenset[str]] = frozenset({"completion"})
    sides: ClassVar[tuple[str, ...]] = ("completion",)

    size: Literal[1] = 1
    """Rows for one prompt."""

    async def draw(self, question: Question, context: Context) -> list[Response]:
        return [self.row(question, context, "completion", 1.0)]


@part
class PreferencePairs(Given):
    """Two rows for each prompt, of one group: the text that was chosen (``chosen`` 1, reward 1) and the one that was
    rejected (``chosen`` 0, reward 0)."""

    reads: ClassVar[frozenset[str]] = frozenset({"chosen", "rejected"})
    fills: ClassVar[frozenset[str]] = frozenset({"chosen"})
    sides: ClassVar[tuple[str, ...]] = ("chosen", "rejected")

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
    ``completion`` (``origin`` 1, reward 0). ``FromProgram(main=False)`` picks these rows."""

    reads: ClassVar[frozenset[str]] = frozenset({"completion", "chosen", "rejected"})
    sides: ClassVar[tuple[str, ...]] = ("chosen", "rejected", "completion")

    size: Literal[3] = 3  # type: ignore[assignment]
    """Rows for one prompt."""

    async def draw(self, question: Question, context: Context) -> list[Response]:
        third = self.row(question, context, "completion", 0.0)
        third.origin, third.columns["chosen"] = 1, 0.0
        return [*await super().draw(question, context), third]


@part
class Labelled(Given):
    """One row for each prompt: a text that somebody called good (``chosen`` 1, reward 1) or bad (``chosen`` 0, reward 0)."""

    reads: ClassVar[frozenset[str]] = frozenset({"labelled"})
    fills: ClassVar[frozenset[str]] = frozenset({"chosen"})
    sides: ClassVar[tuple[str, ...]] = ("labelled",)

    size: Literal[1] = 1
    """Rows for one prompt that count in the batch."""

    async def draw(self, question: Question, context: Context) -> list[Response]:
        row = self.row(question, context, "labelled", float(question.label))
        row.columns["chosen"] = float(question.label)
        return [row]


@part
class Mismatched(Labelled):
    r"""Beside each labelled text :math:`y_j` of a prompt :math:`x_j` the text of the step's next prompt, :math:`y_{j+1}`, as if it answered
    :math:`x_j` (the last prompt gets the first text): a row with ``origin`` 1, ``chosen`` 0 and reward 0.

    They stand for texts that have nothing to do with their prompts: the mean of their log-ratios to the reference is
    KTO's reference point. ``FromProgram(main=False)`` picks them. Source: KTO, arXiv:2402.01306, section 4.2, and the
    authors' ContextualAI/HALOs, which shifts by one inside a batch. Our reading: the shift runs over the step.
    """

    least: ClassVar[int] = 2

    async def draw(self, question: Question, context: Context) -> list[Response]:
        rows = await super().draw(question, context)
        async with context.round:
            texts = await context.round.meet(question.key, question.given["labelled"])
        keys = [*texts]
        follows = keys[(keys.index(question.key) + 1) % len(keys)]
        if follows != question.key:  # a held-out prompt may be alone in its block
            other = self.row(question, context, "labelled", 0.0, texts[follows])
            other.columns["chosen"] = 0.0
            rows.append(dataclasses.replace(other, origin=1))
        return rows


@part
class Scored(Given):
    """All responses that the task brings for a prompt, in one group: the reward of each is its score. Prompts may have
    different numbers of them."""

    reads: ClassVar[frozenset[str]] = frozenset({"responses"})
    sides: ClassVar[tuple[str, ...]] = ("responses",)

    size: Count = 4
    """How many responses a prompt has about: a batch of N responses takes N / size prompts, and all rows of each."""

    async def draw(self, question: Question, context: Context) -> list[Response]:
        return [self.row(question, context, "responses", score, tokens) for tokens, score in question.scored]
