"""Questions that are drawn by chance: what the testbeds are made of. Nothing here imports torch."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from policyopt.data.builtin import Builtin, Entry
from policyopt.data.reasoning import LENGTH, Questions, heldout_questions
from policyopt.items import JudgeSpec, Task


def _question(entry: Entry) -> str:
    return str(entry["question"])


def _steps(entry: Entry) -> tuple[list[str], str]:
    return entry["steps"], entry["answer"]


@dataclass(frozen=True, kw_only=True)
class Drawn(Builtin):
    """A task whose entries bring all that is written of them.

    An entry has ``question``, ``steps`` (the lines of a worked solution), ``answer`` and ``metadata``; where somebody in a hurry
    writes anything else than the answer line, all of that as ``hasty``; and where accuracy shall be told apart by kinds of
    questions, the name of its own as ``source``; and where it shall be known how well the policy is beaten, answers of opponents as
    ``rivals``.
    """

    name: str
    draw: Callable[[random.Random], Entry]
    """An entry from random numbers of its own."""
    judge: Callable[..., dict[str, Any] | list[dict[str, Any]]]
    """Takes prompt, response and answer, or lists of them at once; see :mod:`policyopt.judging.judges`."""
    config: dict[str, Any] = field(default_factory=dict)
    prompt: Callable[[Entry], str] = _question
    steps: Callable[[Entry], tuple[list[str], str]] = _steps

    def shortcut(self, entry: Entry) -> str | None:
        return entry.get("hasty")

    def task(self, *, seed: int, heldout: int, **options: Any) -> Task:
        """The task, with these options of the judge. Held-out questions do not depend on the seed.

        Raises ``UserError`` where there are fewer of them than asked for.
        """
        size = 5 * LENGTH - 1
        held = heldout_questions(self.name, DrawnSource(self, -1, size), heldout, self)
        train = Questions(self.name, DrawnSource(self, seed, size), LENGTH, self)
        judge = JudgeSpec(f"{self.judge.__module__}:{self.judge.__name__}", options)
        return Task(self.name, train, held, judge, self.max_tokens, self.warm_start)


@dataclass(frozen=True)
class DrawnSource:
    """Entry i of a seed."""

    bed: Drawn
    seed: int
    size: int

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Entry:
        return self.bed.draw(random.Random(f"{self.bed.name} {self.seed} {index}"))
