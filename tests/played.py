"""Episodes on a script: a policy that writes what a function says, in a world, through the player and the program of a recipe."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from policyopt.environments.world import Environment
from policyopt.items import Example, Verdict, user
from policyopt.models.text import Text
from policyopt.models.tokenizer import build_tokenizer
from policyopt.rows import Batch
from policyopt.sources.episodes import Episodes, Player
from policyopt.sources.program import Context, Question, Response, Rollout
from policyopt.training.rows import to_batch

END = 2
TEXT = Text(build_tokenizer(), (END,))
Says = Callable[[str, tuple[int, ...]], str]
"""What the policy writes in a context, by the context's text and the key of the draw."""


class Scripted:
    """A sampler whose policy writes what a function says, then the end token."""

    def __init__(self, says: Says, likely: Callable[[str], float] = len) -> None:
        self.says, self.likely = says, likely
        self.contexts: list[str] = []
        """Every context that something was written in."""

    async def generate(
        self, tokens: Sequence[int], *, n: int = 1, max_tokens: int, temperature: Any = 1.0, key: tuple[int, ...], **_: Any
    ) -> list[Response]:  # fmt: skip
        """``n`` times what the function says."""
        context = TEXT.decode(tokens)
        self.contexts.append(context)
        ids = [*TEXT.encode(self.says(context, key)), END][:max_tokens]
        reason: Any = "eos" if ids[-1] == END else "length"
        size = len(ids)
        return [
            Response(list(ids), [-1.0] * size, [0.5] * size, reason, versions=[0] * size, temperature=temperature)
            for _ in range(n)
        ]

    async def logprobs(self, tokens: tuple[int, ...], written: tuple[int, ...], *, temperature: float) -> Response:
        """Log-probabilities that the second function says by the context's text."""
        x = float(self.likely(TEXT.decode(tokens)))
        return Response(list(written), [x] * len(written), [0.0] * len(written))


def play(
    program: Rollout, sampler: Scripted, make: Callable[[], Environment], *, budget: int = 200, question: str = "q?",
    answer: str = "", judged: bool = False, key: tuple[int, ...] = (0, 1, 0), meta: Any = None, **limits: Any,
) -> list[Response]:  # fmt: skip
    """The rows that a program makes of the episodes of one task."""
    example = Example("task", user(question), answer, meta=meta or {"seed": 3})
    rewrite = program.rewrite_context if program.rewrites else None
    player = Player(make, TEXT, Episodes(**limits), "json", judged, rewrite=rewrite)

    async def judge(responses: Sequence[Response]) -> list[Verdict]:
        return [Verdict(float(len(r.tokens)), True, True, "") for r in responses]

    drawing: Any = sampler
    context = Context(
        drawing,
        program,
        judge,
        encode=TEXT.encode,
        decode=TEXT.decode,
        episodes=partial(player.play, example),
    )
    asked = Question(TEXT.prompt(example.prompt), budget, key, text=question, answer=answer)
    return asyncio.run(program.draw(asked, context))


def as_batch(rows: Sequence[Response], needs: frozenset[str] = frozenset(), question: str = "q?") -> Batch:
    """The rows as a batch of one prompt."""
    prompt = TEXT.prompt(user(question))
    verdicts = [r.verdict for r in rows if r.verdict is not None]
    return to_batch([prompt] * len(rows), rows, verdicts, [0] * len(rows), 200, torch.float64, needs)
