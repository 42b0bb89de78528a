"""What several tests of methods share: methods that go on from the beginning of a worked solution, and the testbed for them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from policyopt.sources.program import Response
from tests.asking import ask
from tests.cases.words._scripted import Script, verdict

RIGHT, WRONG = verdict(1.0), verdict(0.0)


SOLUTION = (11, 12, 13, 14, 15, 16, 17, 18)


class Recorder(Script):
    """A script that writes down what it was asked."""

    def __init__(self, rounds: Sequence[Sequence[Any]] = ()) -> None:
        super().__init__(rounds)
        self.requests: list[tuple[tuple[int, ...], dict[str, Any]]] = []

    async def generate(self, tokens: Sequence[int], **how: Any) -> list[Response]:
        self.requests.append((tuple(tokens), how))
        return await super().generate(tokens, **how)


def draw(rollout: Any, sampler: Any, key: tuple[int, ...] = (0, 0, 0), budget: int = 20, **how: Any) -> list[Response]:
    """What a program returns for a prompt of two tokens."""
    asked = ask(sampler, (1, 2), budget, key, sampler.judge, how.get("solution", (*SOLUTION, 2)), program=rollout)
    return asyncio.run(rollout.draw(*asked))
