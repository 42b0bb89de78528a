"""The world ``history``: facts that arrive turn by turn, and a question when they have all been told."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, ClassVar

from policyopt.environments.world import Action, Observation
from policyopt.environments.worlds.told import NUMBERS, Told
from policyopt.errors import UserError

LETTERS = "abcdefghijklmnopqrstuvwxyz"
FILLER = ("la", "mi", "so", "fa", "re", "do")


class History(Told):
    """A fact each turn, ``k=4`` with words around it that mean nothing; then ``k?``, and the answer is worth 1.

    Whatever is written while facts arrive is taken as a note and heard by nobody. ``history:N`` tells N facts, each of about ``filler``
    characters more than it needs. The state is how many facts were told. ``numbers``: ``noted``, the characters of the notes.

    Six facts fit into the default budget of an episode, so that any method can be tried. Twenty do not: a program that goes on from
    what is in its context alone never comes to the question and earns nothing, one that rewrites its context (SUPO, arXiv:2510.06727) has
    to keep what may be asked for.

    A sound method learns to look the fact up, from a start at which two in three episodes answer with the last one told.
    """

    summary: ClassVar[str] = "facts over many turns, history:N, and a question at the end (an environment)"
    rules: ClassVar[str] = (
        "You are told facts such as k=4, one each time. Answer each with a short note. When you are asked for one, such as k?, "
        "answer with its number alone."
    )
    option: ClassVar[str] = "facts"
    max_tokens: int = 288
    warm_start: Mapping[str, Any] = {"steps": 700, "examples": 2048, "terse": 0.0, "lessons": 3.0}

    def __init__(self, facts: int = 6, filler: int = 6, explain: bool = False) -> None:
        super().__init__(explain)
        if not 2 <= facts <= len(LETTERS):
            raise UserError(f"history: {facts} facts, expected 2 to {len(LETTERS)}")
        self.facts, self.filler = facts, filler
        self.turns = facts + 1

    def begin(self, chance: random.Random) -> None:
        """See :class:`~policyopt.environments.worlds.told.Told`."""
        self.number = chance.randrange(NUMBERS)
        names = chance.sample(LETTERS, self.facts)
        self.values = {name: str(chance.randrange(10)) for name in names}
        self.asked = chance.choice(names[:-1])  # the last one would need no memory
        around = [chance.choices(FILLER, k=self.filler // 3) for _ in names]
        self.lines = [" ".join([f"{n}={v}", *words]) for (n, v), words in zip(self.values.items(), around, strict=True)]
        self.told = 1

    def question(self) -> str:
        """See :class:`~policyopt.environments.worlds.told.Told`."""
        return f"history {self.number}: {self.lines[0]}"

    def answer(self) -> str:
        """What was told of what is asked for."""
        return self.values[self.asked]

    def state(self) -> str:
        """See :class:`~policyopt.environments.worlds.told.Told`."""
        return f"{self.told}"

    def step(self, action: Action) -> Observation:
        """A note while facts arrive; then the answer."""
        if self.told <= self.facts:
            text = self.lines[self.told] if self.told < self.facts else f"{self.asked}?"
            self.told += 1
            return Observation(text, reward=0.0, state=self.state(), numbers={"noted": float(len(action))})
        right = action.strip() == self.answer()
        return Observation(
            reward=float(right), done=True, correct=right, state=self.state(),
            reason=f"{action.strip()[:20]!r} against {self.answer()!r}",
        )  # fmt: skip

    def shown(self, chance: random.Random) -> str:
        """Nothing of note, then the answer; in a hurry the last number that was told."""
        if self.told <= self.facts:
            return "ok"
        return [*self.values.values()][-1] if self.hurried(chance) else self.answer()
