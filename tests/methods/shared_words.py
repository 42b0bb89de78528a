"""What several tests of methods share: methods that put words between two draws: questions in other words, and answers after a critique."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import torch

from policyopt.items import Verdict
from policyopt.sources.program import Context, Response
from policyopt.training.rows import to_batch
from tests.asking import ask


def ids_of(text: str) -> tuple[int, ...]:
    return tuple(map(ord, text))


def text_of(ids: Sequence[int]) -> str:
    return "".join(chr(i) for i in ids if i)


class Scribe:
    """A sampler that writes what a function of the context and of the place in the request says, a character a token;
    id 0 ends. It keeps what it was asked."""

    def __init__(self, write: Callable[[str, int], str]) -> None:
        self.write = write
        self.asked: list[tuple[str, int]] = []
        self.how: list[dict[str, Any]] = []

    async def generate(self, tokens: Sequence[int], *, n: int = 1, max_tokens: int, **how: Any) -> list[Response]:
        context = text_of(tokens)
        self.asked.append((context, n))
        self.how.append({"max_tokens": max_tokens, **how})
        written = [[*ids_of(self.write(context, i)), 0][:max_tokens] for i in range(n)]
        return [Response(x, [-1.0] * len(x), [0.5] * len(x), "eos" if x[-1] == 0 else "length") for x in written]

    async def logprobs(self, tokens: tuple[int, ...], written: tuple[int, ...], *, temperature: float) -> Response:
        return Response(list(written), [-2.0] * len(written), [0.7] * len(written), temperature=temperature)


def draw(
    rollout: Any, write: Callable[[str, int], str], question: str = "7-3+2", answer: str = "6", **how: Any
) -> tuple[list[Response], Scribe, Context]:
    """What a program draws for a question that is asked between brackets; right is what holds the answer."""

    async def judge(responses: Sequence[Response]) -> list[Verdict]:
        right = [answer in text_of(r.tokens) for r in responses]
        return [Verdict(float(ok), ok, True, "") for ok in right]

    scribe = Scribe(write)
    asked = ask(
        scribe, ids_of(f"[{question}]"), 9, (0, 0, 0), judge, encode=ids_of, decode=text_of, text=question, answer=answer,
        frame=lambda text: ids_of(f"[{text}]"), room=how.get("room", 1 << 20), program=rollout,
    )  # fmt: skip

    async def whole() -> list[Response]:
        drawn: list[Response] = await rollout.draw(*asked)
        return drawn

    return asyncio.run(whole()), scribe, asked[1]


def batch_of(drawn: Sequence[Response]) -> Any:
    """Responses to one prompt that are judged where they were not, as a batch in float64."""
    verdicts = [
        r.verdict or Verdict(float("6" in text_of(r.tokens)), "6" in text_of(r.tokens), True, "") for r in drawn
    ]
    return to_batch([(1,)] * len(drawn), drawn, verdicts, [0] * len(drawn), 9, torch.float64)


def said(*scores: float) -> list[Verdict]:
    return [Verdict(s, s == 1, True, "") for s in scores]
