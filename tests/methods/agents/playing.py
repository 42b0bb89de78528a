"""Episodes of a world whose policy says what a test has it say, character by character."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from policyopt.environments.world import Environment
from policyopt.items import Example, user
from policyopt.sources.episodes import Player
from policyopt.sources.program import Question, Response
from tests.echo import Echo


class Characters:
    """A text whose tokens are characters."""

    def opening(self, prompt: Any, told: Any, schemas: Any) -> tuple[int, ...]:
        return tuple(map(ord, prompt[-1]["content"] + "".join(m["content"] for m in told)))

    def following(self, told: Any, last: int, schemas: Any) -> tuple[int, ...]:
        return tuple(map(ord, "|" + "".join(m["content"] for m in told) + "|"))

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(map(chr, ids))


class Says:
    """A sampler that says one text after the other."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = list(texts)
        self.asked: list[tuple[int, ...]] = []

    async def generate(self, tokens: Sequence[int], *, n: int = 1, **how: Any) -> list[Response]:
        self.asked.append(tuple(tokens))
        said = [self.texts.pop(0) for _ in range(n)]
        return [
            Response(list(map(ord, t)), [-1.0] * len(t), [0.5] * len(t), "eos", versions=[0] * len(t)) for t in said
        ]


def player(make: Callable[[], Environment] = Echo) -> Player:
    """Who plays the episodes of a world."""
    return Player(make, Characters())  # type: ignore[arg-type]


async def played(texts: Sequence[str], make: Callable[[], Environment] = Echo) -> list[Response]:
    """One episode in which the policy says these texts."""
    question = Question((1,), 60, (0, 0, 0))
    example, says = Example("a", user("?"), ""), Says(texts)
    return await player(make).play(example, question, says, n=1, temperature=1.0, key=(0,))  # type: ignore[arg-type]
