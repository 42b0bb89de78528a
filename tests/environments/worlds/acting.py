"""Acting in worlds: what somebody says turn by turn, and what comes back."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

from policyopt.data.worlds import began
from policyopt.environments.calls import find_calls
from policyopt.environments.world import Action, Observation
from policyopt.environments.worlds.told import Told


def said(world: Told, text: str) -> Observation:
    """What a world answers to a text, calls of its tools carried out."""
    found: Any = world.step(Action(text, *find_calls(text, "json")) if world.tools else Action(text))
    return found if isinstance(found, Observation) else asyncio.run(found)


def heard(observation: Observation) -> str:
    """What the policy reads."""
    return "\n".join(m["content"] for m in observation.told())


def acted(world: Told, texts: Sequence[str]) -> list[Observation]:
    """What a world answers to texts, up to the end of the episode."""
    found = []
    for text in texts:
        found.append(said(world, text))
        if found[-1].done:
            break
    return found


def shown(world: Told, seed: int, hurry: float) -> list[Observation]:
    """An episode of who shows how it is done, in a hurry with this probability."""
    world.hurry = hurry
    began(world, seed)
    chance, found = random.Random(seed), []
    for _ in range(world.turns):
        found.append(said(world, world.shown(chance)))
        if found[-1].done:
            break
    return found


def total(observations: Sequence[Observation], name: str = "") -> float:
    """The return of an episode, or the sum of one of its numbers."""
    return sum((o.numbers.get(name, 0.0) if name else o.reward or 0.0) for o in observations)


def careful(world: Told, seed: int) -> list[str]:
    """What who takes the time says in an episode; the world is at its beginning again afterwards."""
    world.hurry = 0.0
    began(world, seed)
    chance, texts = random.Random(0), []
    for _ in range(world.turns):
        texts.append(world.shown(chance))
        if said(world, texts[-1]).done:
            break
    began(world, seed)
    return texts
