"""What the library's own worlds have in common: everything of an episode follows from its seed, nothing ever waits, and somebody who
knows the world shows how it is acted in, so that a small model can be warmed up on it."""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from policyopt.environments.world import Action, Environment, Observation


class Told(Environment):
    """A world that is told in text."""

    instant: ClassVar[bool] = True
    announced: ClassVar[bool] = False
    summary: ClassVar[str]
    """One line for the list of tasks."""
    max_tokens: ClassVar[int]
    """Longest episode in characters, what the world says included, with room for detours."""
    warm_start: ClassVar[Mapping[str, Any]] = {}
    """Where the embedded model's :class:`~policyopt.models.warmstart.WarmStart` differs from its defaults."""

    def reset(self, seed: int, row: Mapping[str, Any]) -> Observation | str | None:
        """See :class:`~policyopt.environments.world.Environment`."""
        self.begin(random.Random(f"{type(self).__name__} {seed}"))
        return Observation(state=self.state())

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
