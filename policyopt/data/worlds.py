"""Tasks that are worlds: their seeds as questions, and how somebody acts in them as what a warm start teaches. Nothing here imports torch."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from policyopt.data.builtin import Entry
from policyopt.data.drawn import Drawn
from policyopt.data.made import Made
from policyopt.data.reasoning import LENGTH
from policyopt.environments.calls import find_calls
from policyopt.environments.names import made_with
from policyopt.environments.world import Action, Observation
from policyopt.environments.worlds import WORLDS
from policyopt.environments.worlds.told import Told
from policyopt.errors import UserError
from policyopt.items import EnvironmentSpec, Example, Lesson, Message, Task, user

Turns = list[tuple[str, tuple[Message, ...]]]
"""What somebody did, and what the world said then."""


def summaries() -> dict[str, str]:
    """The worlds: name and one line of description."""
    return {name: world.summary for name, world in WORLDS.items()}


def world_task(
    name: str, option: str = "", *, seed: int, heldout: int, options: Mapping[str, Any] | None = None
) -> Task:
    """The task of a world; ``option`` is what stands behind the colon of its name, ``options`` are further ones by name.

    Raises ``UserError`` for an option that the world does not take.
    """
    options = {**options_of(name, option), **(options or {})}
    full = f"{name}:{option}" if option else name
    return task_of(
        made_with(WORLDS[name], options, name), full, EnvironmentSpec(name, options), seed=seed, heldout=heldout
    )


def task_of(world: Callable[[], Told], name: str, spec: EnvironmentSpec, *, seed: int, heldout: int) -> Task:
    """The task of a world that is told: its questions by seed, and how somebody acts in it for a warm start."""

    def draw(chance: random.Random) -> Entry:
        seed = chance.getrandbits(31)
        made = began(world(), seed)
        first = made.shown(random.Random(f"shown {seed}"))
        return {
            "question": made.question(), "steps": first.split("\n")[:-1], "answer": made.answer(), "metadata": {"seed": seed},
            "hasty": made.hasty(random.Random(f"hasty {seed}")), "first": first,
        }  # fmt: skip

    try:
        some = world()
    except UserError:
        raise
    except Exception as error:  # options are whatever somebody wrote
        raise UserError(f"{name} cannot be made with {dict(spec.options)}: {type(error).__name__}: {error}") from error
    bed = _World(
        name=name,
        summary=some.summary,
        draw=draw,
        judge=dict,
        max_tokens=some.max_tokens,
        warm_start=dict(some.warm_start),
    )
    task = bed.task(seed=seed, heldout=heldout)
    lessons = Shown(task.train, world)
    return Task(
        name, task.train, task.heldout, None, task.max_tokens, task.warm_start, lessons=lessons,
        environment=spec,
    )  # fmt: skip


def options_of(name: str, option: str) -> dict[str, Any]:
    """What a world is made with, from what stands behind the colon: its one option, a whole number."""
    takes = getattr(WORLDS[name], "option", None)
    if not option:
        return {}
    if takes is None or not option.isdecimal():
        wants = (
            f"expected a whole number behind the colon ({takes})" if takes else f"{name} takes nothing behind a colon"
        )
        raise UserError(f"task {name}:{option}: {wants}")
    return {takes: int(option)}


class _World(Drawn):
    """Entries whose worked solution is the first turn of somebody who knows the world."""

    def solution(self, entry: Entry) -> str:
        return str(entry["first"])


def began(world: Told, seed: int) -> Told:
    """A world at the beginning of an episode."""
    world.reset(seed, {})
    return world


def played(world: Told, chance: random.Random) -> Turns:
    """The turns of somebody who knows the world, up to the end of an episode."""
    turns: Turns = []
    for _ in range(world.turns):
        said = world.shown(chance)
        observation: Any = world.step(Action(said, *find_calls(said, "json")) if world.tools else Action(said))
        if not isinstance(observation, Observation):
            observation = asyncio.run(observation)
        turns.append((said, observation.told()))
        if observation.done:
            break
    return turns


def seeds_task(*, seed: int, heldout: int) -> Task:
    """The task ``seeds``: nothing but seeds, for environments that ask by themselves."""
    train = _Seeds("seeds", seed, LENGTH)
    held = tuple(_Seeds("seeds-heldout", -1, heldout))
    return Task("seeds", train, held, None, 512)


class _Seeds(Made[Example]):
    """Examples without words, each with a seed of its own."""

    def __init__(self, name: str, seed: int, size: int) -> None:
        super().__init__(size)
        self.name, self.seed = name, seed

    def _make(self, index: int) -> Example:
        drawn = random.Random(f"seeds {self.seed} {index}").getrandbits(31)
        return Example(f"{self.name}-{index}", user(""), "", meta={"seed": drawn})


class Shown(Made[Lesson]):
    """For each training question an episode of somebody who knows the world, all of whose turns are taught."""

    def __init__(self, questions: Sequence[Any], world: Any) -> None:
        super().__init__(len(questions), kept=1024)
        self.questions, self.world = questions, world

    def _make(self, index: int) -> Lesson:
        example = self.questions[index]
        turns = played(began(self.world(), seed_in(example.meta)), random.Random(f"lesson {index}"))
        heard = [behind(told) for _, told in turns[:-1]]
        then = tuple((after, said) for after, (said, _) in zip(heard, turns[1:], strict=True))
        return Lesson(example.prompt, turns[0][0], then=then)


def behind(told: Sequence[Message]) -> str:
    """What the embedded model's template writes between two turns of the model."""
    from policyopt.models.tokenizer import CHAT_TURN  # it brings transformers, which a list of tasks does without

    talk = "".join(CHAT_TURN.format(role="user", content=m["content"]) for m in told or user(""))
    return f"{talk}<|assistant|>"


def seed_in(meta: Mapping[str, Any]) -> int:
    """The seed of a question of a world."""
    return int(meta["metadata"]["seed"])
