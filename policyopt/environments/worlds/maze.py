"""The world ``maze``: a key, a locked door, a goal, and signposts. What is near has to wait for what is needed first."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from policyopt.environments.world import Action, Observation
from policyopt.environments.worlds.told import NUMBERS, Told

Cell = tuple[int, int]
"""Column and row, from the left and from the top."""
Edge = frozenset[Cell]
"""Two cells with an opening between them."""

STEPS: Mapping[str, Cell] = {"N": (0, -1), "E": (1, 0), "S": (0, 1), "W": (-1, 0)}
WIDTH, HEIGHT = 4, 3
SHORTEST, LONGEST = 5, 8
"""Steps of the best way through a maze."""


@dataclass(frozen=True)
class Plan:
    """A maze without loops: one way leads from each cell to each other."""

    openings: frozenset[Edge]
    start: Cell
    key: Cell
    door: Edge
    """The opening that is locked."""
    goal: Cell

    def exits(self, cell: Cell) -> list[str]:
        """The directions that are open, the locked one included."""
        return [letter for letter in STEPS if frozenset((cell, moved(cell, letter))) in self.openings]

    def way(self, cell: Cell, target: Cell) -> str:
        """The directions from a cell to another, as if no door were locked."""
        ways, new = {cell: ""}, [cell]
        while target not in ways:
            new = [
                after
                for here in new
                for letter in self.exits(here)
                if (after := moved(here, letter)) not in ways and ways.setdefault(after, ways[here] + letter)
            ]
        return ways[target]


def moved(cell: Cell, letter: str) -> Cell:
    """The cell in a direction."""
    x, y = STEPS[letter]
    return cell[0] + x, cell[1] + y


def drawn(chance: random.Random) -> Plan:
    """A maze of which the best way, over the key and through the door, has 5 to 8 steps. The key lies off the way to the door."""
    cells = [(x, y) for y in range(HEIGHT) for x in range(WIDTH)]
    while True:
        openings = grown(cells, chance)
        start, key, goal = chance.sample(cells, 3)
        plan = Plan(openings, start, key, frozenset(), goal)
        way, here, edges = plan.way(start, goal), start, []
        for letter in way:
            edges.append(frozenset((here, here := moved(here, letter))))
        place = chance.randrange(len(edges))
        near = moved_along(start, way[:place])
        to_key, to_door = plan.way(start, key), plan.way(key, near)
        passed = {moved_along(start, way[:i]) for i in range(len(way) + 1)}
        behind = moved(near, way[place]) in {moved_along(key, to_door[:i]) for i in range(len(to_door) + 1)}
        if key not in passed and not behind and SHORTEST <= len(to_key + to_door + way[place:]) <= LONGEST:
            return Plan(openings, start, key, edges[place], goal)


def moved_along(cell: Cell, way: str) -> Cell:
    """The cell at the end of a way."""
    for letter in way:
        cell = moved(cell, letter)
    return cell


def grown(cells: list[Cell], chance: random.Random) -> frozenset[Edge]:
    """Openings that join all cells without a loop."""
    reached, openings = [chance.choice(cells)], set()
    while len(reached) < len(cells):
        here = chance.choice(reached[-3:])
        fresh = [c for letter in STEPS if (c := moved(here, letter)) in cells and c not in reached]
        if fresh:
            reached.append(chance.choice(fresh))
            openings.add(frozenset((here, reached[-1])))
        else:
            reached.insert(0, reached.pop(reached.index(here)))
    return frozenset(openings)


class Maze(Told):
    """Up to 10 turns, each a letter: N, E, S or W.

    A place is told as its open directions and a signpost: ``N.E. kN dE gE`` has openings to the north and the east, the key is to the
    north, the door and the goal behind it to the east; ``k+`` is a key that one has, ``d+`` a door that is open. Whoever walks into the
    door with the key opens it and passes. Reaching the goal is worth 1; ``key_reward`` and ``door_reward`` are paid besides, the
    first time. ``numbers``: ``key``, ``door``, ``goal`` (events, at most 1 in an episode), ``bumps`` (turns into a wall, against the locked
    door, or that were no direction). The state is where one is, whether one has the key and whether the door is open.

    A sound method learns to fetch the key first, from a start at which three in four episodes run for the goal and stand before
    a locked door.
    """

    summary: ClassVar[str] = "a maze with a key, a locked door and a goal, a step each turn (an environment)"
    rules: ClassVar[str] = (
        "You are in a maze. You read the open directions and a signpost: kN means that the key is to the north, d is the locked door, "
        "g the goal behind it; k+ means that you have the key. Answer with one letter each time: N, E, S or W."
    )
    turns = 10
    hurry = 0.75
    max_tokens: int = 288
    warm_start: Mapping[str, Any] = {"steps": 500, "examples": 2048, "terse": 0.0, "lessons": 3.0}

    def __init__(self, key_reward: float = 0.0, door_reward: float = 0.0, explain: bool = False) -> None:
        super().__init__(explain)
        self.key_reward, self.door_reward = key_reward, door_reward

    def begin(self, chance: random.Random) -> None:
        """See :class:`~policyopt.environments.worlds.told.Told`."""
        self.number = chance.randrange(NUMBERS)
        self.plan = drawn(random.Random(f"maze {self.number}"))
        self.here, self.has_key, self.opened = self.plan.start, False, False
        self.said = ""

    def question(self) -> str:
        """See :class:`~policyopt.environments.worlds.told.Told`."""
        return f"maze {self.number}: {self.place()}"

    def answer(self) -> str:
        """The best way."""
        plan = self.plan
        to_key = plan.way(plan.start, plan.key)
        return to_key + plan.way(plan.key, plan.goal)

    def state(self) -> str:
        """See :class:`~policyopt.environments.worlds.told.Told`."""
        return f"{self.here[0]},{self.here[1]} {self.has_key:d} {self.opened:d}"

    def place(self) -> str:
        """What one reads where one is."""
        exits = self.plan.exits(self.here)
        key = "+" if self.has_key else self.plan.way(self.here, self.plan.key)[:1]
        goal = self.plan.way(self.here, self.plan.goal)[:1]
        door = "+" if self.opened else goal  # it lies on the way, for who has not passed it
        return f"{''.join(x if x in exits else '.' for x in STEPS)} k{key} d{door} g{goal}"

    def step(self, action: Action) -> Observation:
        """Go where the letter says; a wall, a locked door and what is no direction cost the turn."""
        letter = action.strip().upper()
        numbers = {"key": 0.0, "door": 0.0, "goal": 0.0, "bumps": 0.0}
        if letter not in STEPS:
            return self.stayed("say N, E, S or W", numbers)
        after = moved(self.here, letter)
        edge = frozenset((self.here, after))
        if edge not in self.plan.openings:
            return self.stayed("wall", numbers)
        if edge == self.plan.door and not self.has_key:
            return self.stayed("locked", numbers)
        reward, self.here, self.said = 0.0, after, ""
        if edge == self.plan.door and not self.opened:
            self.opened, numbers["door"] = True, 1.0
            reward += self.door_reward
        if after == self.plan.key and not self.has_key:
            self.has_key, numbers["key"] = True, 1.0
            reward += self.key_reward
        if after == self.plan.goal:
            return Observation(
                reward=reward + 1.0, done=True, correct=True, numbers={**numbers, "goal": 1.0}, reason="the goal", state=self.state(),
            )  # fmt: skip
        return Observation(self.place(), reward=reward, correct=False, numbers=numbers, state=self.state())

    def stayed(self, why: str, numbers: dict[str, float]) -> Observation:
        """One is where one was."""
        self.said = why
        return Observation(
            f"{why} {self.place()}", reward=0.0, correct=False, numbers={**numbers, "bumps": 1.0}, state=self.state()
        )

    def shown(self, chance: random.Random) -> str:
        """To the key, then to the goal; in a hurry to the goal, until the locked door teaches better, one time in ten."""
        hurried = self.hurried(chance)
        if hurried and self.said == "locked" and chance.random() < 0.1:
            self._hurried = hurried = False
        target = self.plan.goal if hurried or self.has_key else self.plan.key
        return self.plan.way(self.here, target)[0]
