"""A world of one's own: find a number between 1 and 9 by asking. Run it with

policyopt check examples/my_world.py
policyopt train grpo --task seeds --env examples/my_world.py:Guess --steps 20
"""

import random

from policyopt.environments.world import Action, Observation
from policyopt.environments.worlds.told import Told


class Guess(Told):
    """Every turn is a digit; the world says higher or lower. Found is worth 1, less a tenth for each further turn."""

    summary = "find a number between 1 and 9"
    turns = 5
    max_tokens = 60
    warm_start = {"steps": 150, "terse": 0.0, "lessons": 1.0}

    def begin(self, chance: random.Random) -> None:
        self.number, self.low, self.high, self.asked = chance.randint(1, 9), 1, 9, 0
        self.named = chance.randint(1000, 9999)

    def question(self) -> str:
        return f"number {self.named}, 1 to 9"

    def state(self) -> str:
        return f"{self.low} {self.high}"

    def step(self, action: Action) -> Observation:
        self.asked += 1
        if not (action.isascii() and action.isdigit() and len(action) == 1):
            return Observation("a digit, please", state=self.state())
        guess = int(action)
        if guess == self.number:
            return Observation(reward=1 - 0.1 * (self.asked - 1), done=True, correct=self.asked < 4)
        if guess < self.number:
            self.low = max(self.low, guess + 1)
        else:
            self.high = min(self.high, guess - 1)
        return Observation("higher" if guess < self.number else "lower", state=self.state())

    def shown(self, chance: random.Random) -> str:
        return str(chance.randint(self.low, self.high))  # somewhere in between, though the middle would be better
