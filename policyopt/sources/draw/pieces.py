"""Episodes that are several rows, each in a context of its own."""

from __future__ import annotations

from typing import ClassVar

from policyopt.part import part
from policyopt.sources.desk import last_rows
from policyopt.sources.draw.group import Group
from policyopt.sources.program import Context, Question, Response


@part
class Pieces(Group):
    """A group of episodes, of which each may be several rows where a subclass rewrites the context between turns (``rewrite_context``).

    ``size`` counts episodes. The rows of one have the same ``episode``, are numbered by ``turn``, and have one verdict: what the environment
    says of the whole, or what a judge says of the last row. On a task without an environment every response is an episode of one row.
    """

    provides: ClassVar[frozenset[str]] = frozenset({"episode", "turn"})
    uses: ClassVar[frozenset[str]] = frozenset({"judge"})
    plays: ClassVar[bool] = True

    async def draw(self, question: Question, context: Context) -> list[Response]:
        rows = await super().draw(question, context)
        if any(row.verdict is None and row.turn for row in rows):
            await context.judge(last_rows(rows))
        number = -1
        for row in rows:
            number += row.turn == 0
            row.columns["episode"] = float(number)
        verdict, last = None, True
        for row in reversed(rows):
            verdict = row.verdict = row.verdict if last else verdict
            last = row.turn == 0
        return rows
