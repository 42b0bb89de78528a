"""Episodes with made-up actions: calls of tools with arguments of the right types, words that stand in what was read, and nonsense, as an
untrained model writes. They follow from a seed and from what the environment says, so that the same environment gives the same."""

from __future__ import annotations

import asyncio
import inspect
import json
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from policyopt.environments.calls import Call
from policyopt.environments.names import Make
from policyopt.environments.objects import ObjectWorld
from policyopt.environments.outside import Outside, Overdue
from policyopt.environments.world import Action, Environment, Observation, observed
from policyopt.errors import first_line

PATIENCE = 5.0
"""Seconds that one call may take."""
EPISODES = 6
TURNS = 24
"""The most turns that are played of an episode."""
BEAT = 0.02

NONSENSE = (
    "",
    "?",
    "42",
    "yes",
    "no",
    "north",
    "-1",
    "1e999",
    "{",
    '{"name": "',
    "NaN",
    "\u00e9\u4e2d\U0001f600",
    "x" * 2000,
)
"""What a model may write that knows nothing of the environment."""


@dataclass
class Trace:
    """What was heard in an episode."""

    heard: list[tuple[Any, ...]] = field(default_factory=list)
    """For each observation its messages, its reward and whether it was the last."""
    actions: list[str] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    longest: float = 0.0
    """Seconds of the longest call."""
    stalled: float = 0.0
    """Seconds for which the event loop stood still."""
    done: bool = False
    cut: int = 0
    """Characters of the longest observation."""
    roles: set[str] = field(default_factory=set)
    error: str = ""
    overdue: str = ""
    numbers: dict[str, float] = field(default_factory=dict)
    rewarded: bool = False

    def note(self, said: Observation, seconds: float) -> None:
        """Take in an observation."""
        whole = said.messages or (({"role": "user", "content": said.text},) if said.text else ())
        told = tuple((m["role"], m["content"]) for m in whole)
        self.heard.append((told, said.reward, said.done))
        self.cut = max([self.cut, *(len(content) for _, content in told)])
        self.roles |= {role for role, _ in told}
        self.rewarded |= said.reward is not None
        self.longest = max(self.longest, seconds)
        for name, x in said.numbers.items():
            self.numbers[name] = self.numbers.get(name, 0.0) + x

    @property
    def total(self) -> float:
        """What the episode was worth."""
        return sum(self.rewards)


class Row(dict[str, Any]):
    """A row that has whatever is asked for."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        super().__init__(given)
        self.made_up: set[str] = set()

    def __missing__(self, name: str) -> str:
        self.made_up.add(name)
        return "4"


@dataclass
class Played:
    """What was played of an environment."""

    make: Make
    traces: list[Trace]
    """Episodes of seeds 0, 1, ..., each of a fresh environment."""
    again: list[Trace]
    """The first two once more."""
    tools: list[Any]
    sample: Environment
    filled: dict[str, Any] = field(default_factory=dict)
    """Columns of rows that it read and nobody has brought, as they were made up."""


def played(make: Make) -> Played:
    """Episodes of an environment, one after the other."""
    rows: list[Row] = []
    traces: list[Trace] = []
    for seed in range(EPISODES):
        traces.append(alone(make, seed, rows))
        if hangs(traces):
            break
    again = [] if hangs(traces) else [alone(make, seed, rows) for seed in range(2)]
    sample = make()
    filled = {name: row.get(name, "4") for row in rows for name in row.made_up}
    return Played(make, traces, again, list(sample.tools), sample, filled)


def hangs(traces: list[Trace]) -> bool:
    """Whether two episodes have waited longer than they may: playing on would say nothing new."""
    return sum(bool(t.overdue) for t in traces) > 1


def alone(make: Make, seed: int, rows: list[Row]) -> Trace:
    """One episode by itself."""
    [trace] = asyncio.run(together([Actor(make, seed, rows)]))
    return trace


class Actor:
    """An episode that is played turn by turn."""

    def __init__(self, make: Make, seed: int, rows: list[Row] | None = None) -> None:
        self.make, self.seed, self.trace = make, seed, Trace()
        self.chance = random.Random(f"actor {seed}")
        self.row = Row({"prompt": [{"role": "user", "content": ""}], "answer": "4"})
        (rows if rows is not None else []).append(self.row)
        self.over = False

    async def begin(self) -> None:
        """Make the environment and reset it."""
        self.made = self.make()
        self.outside = self.made.outside = Outside(PATIENCE, self.made.instant)
        self._fill()
        await self._hear(self.made.reset, self.seed, self.row)

    async def turn(self) -> None:
        """One action."""
        action = acted(self.chance, self.trace, self.made.tools, len(self.trace.actions))
        self.trace.actions.append(str(action))
        self.trace.rewards.append(0.0)
        await self._hear(self.made.step, action)
        self.over = self.over or self.trace.done or len(self.trace.actions) >= min(TURNS, max(1, self.made.turns))

    async def end(self) -> None:
        """Finish and close."""
        if not self.trace.error and not self.trace.overdue:
            await self._hear(self.made.finish)
        try:
            await self.outside(self.made.close)
        except Exception:
            pass
        self.outside.close()

    async def _hear(self, function: Callable[..., Any], *args: Any) -> None:
        start = time.monotonic()
        try:
            said = observed(await self.outside(function, *args))
        except Overdue as error:
            self.trace.overdue, self.over = str(error), True
            return
        except Exception as error:
            what = f"{type(error).__name__}: {first_line(error)}"
            doing = f"on {self.trace.actions[-1][:40]!r}" if function == self.made.step else f"in {function.__name__}"
            self.trace.error, self.over = f"it raises {what} {doing}", True
            return
        self.trace.note(said, time.monotonic() - start)
        if said.reward is not None:
            self.trace.rewards = self.trace.rewards or [0.0]
            self.trace.rewards[-1] += said.reward
        self.trace.done |= said.done
        self.over = self.over or said.done

    def _fill(self) -> None:
        """Make up what the ``reset`` of an object has to be given of a row."""
        method = getattr(self.made.object, "reset", None) if isinstance(self.made, ObjectWorld) else None
        for p in inspect.signature(method).parameters.values() if method is not None else ():
            named = p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and p.default is p.empty
            if named and p.name not in self.row and p.name != "seed":
                number = str(p.annotation) in ("int", "float", "<class 'int'>", "<class 'float'>")
                self.row[p.name] = 4 if number else self.row[p.name]
                self.row.made_up.add(p.name)


async def together(actors: list[Actor]) -> list[Trace]:
    """Episodes that take turns with each other; how long the event loop stood still is measured."""
    beats: list[float] = []
    heart = asyncio.ensure_future(_beat(beats))
    for actor in actors:
        await actor.begin()
    while any(not a.over for a in actors):
        for actor in actors:
            if not actor.over:
                await actor.turn()
    for actor in actors:
        await actor.end()
    await asyncio.sleep(BEAT)
    heart.cancel()
    for actor in actors:
        actor.trace.stalled = max(beats, default=0.0)
    return [a.trace for a in actors]


async def _beat(beats: list[float]) -> None:
    last = time.monotonic()
    while True:
        await asyncio.sleep(BEAT)
        now = time.monotonic()
        beats.append(now - last - BEAT)
        last = now


# Actions ---------------------------------------------------------------------------------------------------------------


def acted(chance: random.Random, trace: Trace, tools: Any, turn: int) -> Action:
    """What is done next."""
    if tools and turn < len(tools) + 2:
        tool = tools[turn % len(tools)]
        arguments = made_arguments(chance, tool.schema["function"]["parameters"])
        written = json.dumps({"name": tool.name, "arguments": arguments})
        return Action(written, [Call(tool.name, arguments)])
    if tools and chance.random() < 0.2:
        return Action('{"name": "nothing"', (), ["this call is no JSON"])
    last = " ".join(content for _, content in trace.heard[-1][0]) if trace.heard else ""
    words = last.split()[:200]
    kind = chance.random()
    if words and kind < 0.6:
        return Action(chance.choice(words).strip(".,:;!?()[]"))
    return Action("4" if kind < 0.7 else chance.choice(NONSENSE))


def made_arguments(chance: random.Random, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments that a schema allows, made up."""
    needed = parameters.get("required", [])
    properties = parameters.get("properties", {})
    return {
        name: _value(chance, one, parameters)
        for name, one in properties.items()
        if name in needed or chance.random() < 0.5
    }


def _value(chance: random.Random, schema: Mapping[str, Any], whole: Mapping[str, Any], depth: int = 0) -> Any:
    if "enum" in schema:
        return chance.choice(schema["enum"])
    if "const" in schema:
        return schema["const"]
    for several in ("anyOf", "oneOf"):
        if schema.get(several) and depth < 5:
            return _value(chance, chance.choice(schema[several]), whole, depth + 1)
    if "$ref" in schema and depth < 5:
        return _value(chance, whole.get("$defs", {}).get(schema["$ref"].rpartition("/")[2], {}), whole, depth + 1)
    kind = schema.get("type", "string")
    if kind == "object":
        return made_arguments(chance, {**schema, "$defs": whole.get("$defs", {})}) if depth < 5 else {}
    if kind == "array":
        return [_value(chance, schema.get("items", {}), whole, depth + 1)] if depth < 5 else []
    low, high = schema.get("minimum", 0), schema.get("maximum", 9)
    simple: dict[str, Any] = {
        "integer": chance.randint(int(low), max(int(low), int(high))),
        "number": chance.uniform(low, max(low, high)), "boolean": chance.random() < 0.5, "null": None,
    }  # fmt: skip
    return simple[kind] if kind in simple else chance.choice(("4", "a", "2+2", "hello"))
