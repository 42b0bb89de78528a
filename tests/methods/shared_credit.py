"""What several tests of methods share: methods that change credit, reward or sampling: what each comes to in its limits, and what a wrong one would not do."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from policyopt.items import Verdict
from policyopt.recipe import Recipe
from policyopt.rows import Batch, make_batch
from policyopt.sources.program import Response
from tests.asking import ask
from tests.batches import gradients, ready

EQUAL_LENGTHS = (4,) * 9


def same(a: Recipe, b: Recipe, batch: Batch) -> None:
    """Two recipes have the same loss and gradient on a batch."""
    (loss, got), (other, wanted) = gradients(a, ready(a, batch)), gradients(b, ready(b, batch))
    torch.testing.assert_close(loss, other, rtol=1e-12, atol=1e-15)
    for name in got:
        torch.testing.assert_close(got[name], wanted[name], rtol=1e-12, atol=1e-15)


def outcomes(rewards: Sequence[float], groups: Sequence[int] | None = None) -> Batch:
    """One token per response."""
    reward = torch.tensor(rewards, dtype=torch.float64)
    sizes = torch.tensor([len(rewards)] if groups is None else groups)
    group = torch.repeat_interleave(torch.arange(len(sizes)), sizes)
    return make_batch(mask=torch.ones(len(rewards), 1, dtype=torch.float64), reward=reward, correct=reward, group=group)


def expected_gradient(credit: Callable[[Batch], Tensor], p: float, n: int) -> float:
    """Sum over all outcomes of n Bernoulli draws: probability times sum of credit [N] and score, over dp."""
    total = 0.0
    for draws in itertools.product((0.0, 1.0), repeat=n):
        chance = math.prod(p if x else 1 - p for x in draws)
        score = torch.tensor([1 - p if x else -p for x in draws], dtype=torch.float64)
        total += chance * float((credit(outcomes(draws)) * score).sum())
    return total / (p * (1 - p))


# Length, form, prior prompts -----------------------------------------------------------------------------------------


def lengths(*tokens: float, correct: float = 1.0) -> Batch:
    x = torch.tensor(tokens, dtype=torch.float64)
    return make_batch(
        mask=torch.ones(len(x), 1, dtype=torch.float64), true_length=x, reward=torch.zeros_like(x),
        correct=torch.full_like(x, correct), formatted=torch.ones_like(x), budget=torch.full_like(x, 40),
    )  # fmt: skip


# Rollouts that look at what they drew --------------------------------------------------------------------------------


class Script:
    """A sampler and judge with given outcomes; the token of a response is its number."""

    def __init__(self, *outcomes: float) -> None:
        self.outcomes, self.keys, self.calls, self.drawn = outcomes, set[tuple[int, ...]](), 0, 0

    async def generate(self, tokens: Any, *, n: int, max_tokens: int, temperature: float, key: Any) -> list[Response]:
        assert not self.keys & {(*key, i) for i in range(n)}, "the same random numbers twice"
        self.keys |= {(*key, i) for i in range(n)}
        self.calls, self.drawn = self.calls + 1, self.drawn + n
        return [Response([i], [-1.0], [0.5], "eos", temperature=temperature) for i in range(self.drawn - n, self.drawn)]

    async def judge(self, responses: Sequence[Response]) -> list[Verdict]:
        scores = [self.outcomes[r.tokens[0]] for r in responses]
        return [Verdict(x, x > 0.5, True, "") for x in scores]

    def draw(self, rollout: Any) -> list[Response]:
        found: list[Response] = asyncio.run(rollout.draw(*ask(self, (1,), 4, (0, 0, 0), self.judge, program=rollout)))
        return found
