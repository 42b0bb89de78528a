"""What several tests of methods share: methods with a critic that guides a search: OREO's losses, ReST-RL's groups, beams and trees."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from policyopt.items import Verdict
from policyopt.sources.program import Response
from tests.asking import Asked, ask

# Programs on a script ------------------------------------------------------------------------------------------------

BREAK, END = 1, 2


LETTERS = (5, 6, 7)


class Grammar:
    """A sampler over a small language: ``depth`` lines of a letter and a line break, then an end token; which letter
    follows from the key. Remembers what it was asked."""

    def __init__(self, depth: int = 2) -> None:
        self.depth, self.asked = depth, []  # type: ignore[var-annotated]

    async def generate(self, tokens: Sequence[int], *, n: int = 1, max_tokens: int, key: tuple[int, ...], stop: Any = (), **_: Any) -> list[Response]:  # fmt: skip
        self.asked.append((tuple(tokens), n, max_tokens, key))
        out = []
        for i in range(n):
            written = [t for t in tokens if t in LETTERS]
            new: list[int] = []
            while len(written) < self.depth:
                written.append(LETTERS[(sum(key) + i // 3 ** (len(new) // 2)) % 3])
                new += [written[-1], BREAK]
                if stop:
                    break
            else:
                new.append(END)
            new = new[:max_tokens]
            logp = [-1.0] * len(new)
            out.append(Response(new, logp, logp[:], "eos" if new[-1] == END else "length", versions=[0] * len(new)))
        return out


def worth(tokens: Sequence[int]) -> float:
    """The reward of a response: 7 6 is the best of nine."""
    found = [t for t in tokens if t in LETTERS]
    known: dict[tuple[int, ...], float] = {(7, 6): 1.0, (7, 5): 0.1, (5, 5): 0.5, (5, 6): 0.6}
    return known.get(tuple(found), 0.2)


def best_below(tokens: Sequence[int]) -> float:
    """The perfect value for whoever maximises: the largest reward that begins so."""
    found = [t for t in tokens if t in LETTERS]
    rest = [(a, b) for a in LETTERS for b in LETTERS if [a, b][: len(found)] == found]
    return max(worth(y) for y in rest)


def prompt(value: Callable[[Sequence[int]], float] | None = None, budget: int = 20, key: int = 0) -> Asked:
    async def judge(responses: Sequence[Response]) -> list[Verdict]:
        return [Verdict(worth(r.tokens), worth(r.tokens) == 1.0, True, "") for r in responses]

    async def critic(responses: Sequence[Response]) -> list[float]:
        return [value(r.tokens) for r in responses] if value else []

    return ask(
        Grammar(),
        (9, 9),
        budget,
        (0, 0, key),
        judge,
        critic=critic if value else None,
        breaks=lambda: frozenset({BREAK}),
    )


def draw(rollout: Any, asked: Asked, sampler: Any = None) -> list[Response]:
    question, context = asked
    context = dataclasses.replace(context, program=rollout, sampler=sampler or context.sampler)
    return asyncio.run(rollout.draw(question, context))
