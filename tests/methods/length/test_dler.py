"""The page of DLER, and groups within a budget."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import torch

from policyopt.methods.length.dler import Tiers, dler
from policyopt.objective import credit, shaped
from policyopt.rows import make_batch
from policyopt.sources.draw import GroupWithinBudget
from policyopt.sources.program import Context, Question, Response


class Endless:
    """A sampler whose responses are as long as they may be."""

    async def generate(self, tokens: tuple[int, ...], *, n: int, max_tokens: int, **_: Any) -> list[Response]:
        """Nothing but ones."""
        return [Response([1] * max_tokens, [0.0] * max_tokens, [0.0] * max_tokens) for _ in range(n)]


def test_a_cut_costs_the_reward_or_leaves_a_share_of_it() -> None:
    batch = make_batch(
        mask=torch.ones(3, 2, dtype=torch.float64),
        group=torch.zeros(3, dtype=torch.long),
        correct=torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64),
        truncated=torch.tensor([0.0, 1.0, 1.0], dtype=torch.float64),
        reward=torch.zeros(3, dtype=torch.float64),
    )
    assert shaped(dler(), batch).reward.tolist() == [1, 0, 0]
    assert shaped(dler(truncated_share=0.1), batch).reward.tolist() == [1, 0.1, 0]
    assert shaped(dler(truncated_share=1.0), batch).reward.tolist() == [1, 1, 0]


def test_advantages_are_white_over_the_tokens_of_the_batch() -> None:
    mask = (torch.arange(5) < torch.tensor([2, 4, 5, 1])[:, None]).double()
    batch = make_batch(
        mask=mask, group=torch.tensor([0, 0, 1, 1]), correct=torch.tensor([1.0, 0.0, 0.0, 1.0]).double(),
        truncated=torch.zeros(4).double(), reward=torch.zeros(4).double(),
    )  # fmt: skip
    found = credit(dler(), shaped(dler(), batch)).advantage[mask.bool()]
    assert abs(found.mean()) < 1e-9 and abs(found.var() - 1) < 1e-6


def test_a_prompt_that_was_easy_has_the_smaller_budget() -> None:
    tiers = Tiers(easy=3, accuracy=0.5)
    assert [tiers((a,), 9) for a in (0.5, 0.4, math.nan)] == [3, 9, 9]

    def drawn(accuracy: float) -> list[tuple[int, int | None]]:
        question = Question((1, 2), 9, (0, 0, 0), history=(accuracy,))
        program = GroupWithinBudget(size=2, budget=tiers)
        return [(len(r.tokens), r.budget) for r in asyncio.run(program.draw(question, Context(Endless())))]  # type: ignore[arg-type]

    assert drawn(1.0) == [(3, 3)] * 2 and drawn(0.0) == [(9, 9)] * 2
    assert dler(easy_budget=20).memory is not None and dler().memory is None
