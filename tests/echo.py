"""A world of three turns in which an untrained model is right about every second time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from policyopt.environments.world import Action, Environment, Observation


class Echo(Environment):
    """Says how long a turn was; a turn of even length is worth 1/2, and the episode is right where more than one was."""

    instant: ClassVar[bool] = True
    turns = 3

    def reset(self, seed: int, row: Mapping[str, Any]) -> Observation:
        """Every other task begins in the same state."""
        self.right, self.turn, self.place = 0, 0, seed % 2
        return Observation(f"go {seed % 10}", state=f"start {self.place}")

    def step(self, action: Action) -> Observation:
        """A reward for the turn."""
        even = sum(map(ord, action)) % 2 == 0
        self.right, self.turn = self.right + even, self.turn + 1
        return Observation(
            f"{len(action)}", reward=0.5 * even, done=self.turn == 3, correct=self.right > 1, state=f"{self.turn} {even}",
            duration=1.0 + len(action), numbers={"letters": float(len(action))},
        )  # fmt: skip
