"""What several tests of methods share: methods with several judges, methods that cut thoughts short, and responses that are written over several steps."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from typing import Any

import torch

from policyopt.items import Verdict
from policyopt.rows import Batch
from policyopt.schema import member
from policyopt.sources.program import Response
from tests.asking import Asked, ask


class Echo:
    """A sampler that writes given texts, one character a token; id 0 ends."""

    def __init__(self, *texts: str) -> None:
        self.texts, self.asked = list(texts), list[tuple[str, int]]()

    async def generate(
        self, tokens: Sequence[int], *, n: int = 1, max_tokens: int, stop: Sequence[Sequence[int]] = (),
        resume: Response | None = None, **_: Any,
    ) -> list[Response]:  # fmt: skip
        self.asked.append((text_of(tokens), n))
        return [self._write(resume or Response([], [], []), max_tokens, stop) for _ in range(n)]

    def _write(self, response: Response, most: int, stop: Sequence[Sequence[int]]) -> Response:
        response.stop_reason = "length"
        for token in [*ids_of(self.texts.pop(0)), 0][:most]:
            response.tokens.append(token)
            response.logp.append(-1.0)
            response.entropy.append(0.5)
            response.versions.append(3)
            if token == 0:
                response.stop_reason = "eos"
            elif any(tuple(response.tokens[-len(s) :]) == tuple(s) for s in stop):
                response.stop_reason = "stop"
                break
        return response


def ids_of(text: str) -> tuple[int, ...]:
    return tuple(map(ord, text))


def text_of(ids: Sequence[int]) -> str:
    return "".join(chr(i) for i in ids if i)


def asked(budget: int = 40, earlier: tuple[Response, ...] = (), scores: Sequence[float] = ()) -> Asked:
    async def judge(responses: Sequence[Response]) -> list[Verdict]:
        return [Verdict(s, s > 0, True, "") for s, _ in zip(scores, responses, strict=True)]

    return ask(None, ids_of("q?"), budget, (0, 0, 0), judge, encode=ids_of, decode=text_of, earlier=earlier)


def run(program: Any, asked: Asked, sampler: Any) -> list[Response]:
    question, context = asked
    context = dataclasses.replace(context, sampler=sampler, program=program)
    found: list[Response] = asyncio.run(program.draw(question, context))
    return found


def same(a: Any, b: Any) -> None:
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def with_components(batch: Batch, **found: list[float]) -> Batch:
    named = {member("component", k): torch.tensor(x, dtype=batch.reward.dtype) for k, x in found.items()}
    return batch.replace(**named)
