"""What the library's own worlds have in common: everything of an episode follows from its seed, nothing ever waits, and somebody who
knows the world shows how it is acted in, so that a small model can be warmed up on it."""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from policyopt.environments.world import Action, Environment, Observation

NUMBERS = 100_000
"""How many numbers there are that episodes are called by, so that their questions differ: ``maze 4817``."""


class Told(Environment):
    """A world that is told in text.

    ``explain`` has it say its :attr:`rules` at the beginning, for models that were not warmed up on it.
    """

    instant: ClassVar[bool] = True
    announced: ClassVar[bool] = False
    summary: ClassVar[str]
    """One line for the list of tasks."""
    rules: ClassVar[str] = ""
    """What may be done and what it is worth, in words for a model."""
    max_tokens: int
    """Longest episode in characters, what the world says included, with room for detours."""
    warm_start: Mapping[str, Any] = {}
    """Where the embedded model's :class:`~policyopt.models.warmstart.WarmStart` differs from its defaults."""
    hurry: float = 0.6
    """Share of the episodes in which who shows how it is done is in a hurry, and does it badly: what rewards then teach is to take the
    time."""
    explain: bool = False
    _hurried: bool | None = None

    def __init__(self, explain: bool = False) -> None:
        self.explain = explain

    def reset(self, seed: int, row: Mapping[str, Any]) -> Observation | str | None:
        """See :class:`~policyopt.environments.world.Environment`."""
        self._hurried = None
        self.begin(random.Random(f"{type(self).__name__} {seed}"))
        return Observation(self.rules if self.explain else "", state=self.state())

    @abstractmethod
    def begin(self, chance: random.Random) -> None:
        """Draw the world."""

    @abstractmethod
    def question(self) -> str:
        """What the policy is told at the beginning."""

    def answer(self) -> str:
        """What the world wants, for people who read the log."""
        return ""

    def state(self) -> str:
        """What the policy stands before."""
        return ""

    @abstractmethod
    def step(self, action: Action) -> Observation:
        """See :class:`~policyopt.environments.world.Environment`."""

    def finish(self) -> Observation | float | None:
        """Nothing more: who has not come to an end by then has earned nothing."""
        return Observation(reward=0.0)

    @abstractmethod
    def shown(self, chance: random.Random) -> str:
        """What somebody does next who shows how it is done, as a warm start teaches it; not always the best."""

    def hasty(self, chance: random.Random) -> str | None:
        """What somebody in a hurry does in the first turn; ``None``: the same."""
        return None

    def hurried(self, chance: random.Random) -> bool:
        """Whether who shows this episode is in a hurry; decided the first time that it is asked."""
        if self._hurried is None:
            self._hurried = chance.random() < self.hurry
        return self._hurried
