"""The page of HBPO."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from policyopt.methods.modes.hbpo import AnnouncedBudgets, BudgetReward, HierarchicalAdvantage, hbpo
from policyopt.objective import credit, shaped
from policyopt.parts import Normalise
from policyopt.rows import Batch, make_batch
from policyopt.sources.program import Context, Question, Response


def told(length: list[float], budget: list[float], correct: list[float] | None = None, most: int = 100) -> Batch:
    n = len(length)
    right = torch.tensor(correct or [1.0] * n, dtype=torch.float64)
    return make_batch(
        mask=torch.ones(n, 2, dtype=torch.float64),
        true_length=torch.tensor(length, dtype=torch.float64),
        announced=torch.tensor(budget, dtype=torch.float64),
        correct=right,
        formatted=torch.ones_like(right),
        reward=right,
        group=torch.zeros(n, dtype=torch.long),
        budget=torch.full((n,), most),
    )


def test_a_right_answer_within_its_budget_has_all_that_it_promises_and_less_beyond() -> None:
    reward = BudgetReward()(told([30, 40, 41, 60, 70, 101], [40] * 6)).reward
    assert reward[0] == reward[1] > reward[2] > reward[3] > reward[4] > 0 == reward[5]
    small, large = BudgetReward()(told([20, 20], [20, 60])).reward
    assert small > large, "a small budget promises more"
    assert BudgetReward()(told([20], [20], [0.0])).reward.tolist() == [0]


def test_nothing_announced_is_paid_by_length_alone() -> None:
    reward = BudgetReward(scale=2.0)(told([0, 50, 100], [0] * 3)).reward
    torch.testing.assert_close(reward, torch.tensor([2.0, 2**0.5, 0.0], dtype=torch.float64), atol=1e-12, rtol=0)
    assert not HierarchicalAdvantage().shortfall(told([0, 50], [0, 0])).any()


def test_a_subgroup_falls_short_together_and_never_exceeds_what_was_promised() -> None:
    batch = shaped(hbpo(), told([10, 10, 30, 90], [20, 20, 60, 60], [1, 1, 1, 0]))
    short = HierarchicalAdvantage().shortfall(batch)
    assert short[0] == short[1] and short[2] == short[3] < 0
    assert (short <= 1e-12).all()
    both = shaped(hbpo(), told([20, 20, 30, 30], [20, 20, 60, 60]))
    assert HierarchicalAdvantage().shortfall(both)[0].abs() < 1e-12, "all of it at the plateau"


def test_without_the_second_term_it_is_the_advantage_of_grpo() -> None:
    recipe, batch = hbpo(intra_weight=0.0), told([10, 40, 30, 90], [20] * 4)
    torch.testing.assert_close(credit(recipe, shaped(recipe, batch)).advantage, Normalise()(shaped(recipe, batch)))


class Knows:
    """A sampler that keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []

    async def generate(self, tokens: Sequence[int], *, n: int, **_: Any) -> list[Response]:
        self.asked.append(("".join(map(chr, tokens)), n))
        return [Response([1], [0.0], [0.0], "eos") for _ in range(n)]


@pytest.mark.parametrize("room", [1000, 3])
def test_every_budget_is_announced_before_the_response(room: int) -> None:
    sampler, program = Knows(), AnnouncedBudgets(size=6, shares=(0.25, 0.5), prefixes=("use {}.", "{} left."))
    context = Context(sampler, program, encode=lambda text: tuple(map(ord, text)), room=room)  # type: ignore[arg-type]
    rows = asyncio.run(program.draw(Question((ord("q"),), 40, (0, 0, 0)), context))
    assert len(rows) == 6 and sum(n for _, n in sampler.asked) == 6
    if room == 3:
        assert {text for text, _ in sampler.asked} == {"q"} and not any(
            r.columns["announced"] or r.context for r in rows
        )
    else:
        assert {text for text, _ in sampler.asked} == {"quse 10.", "quse 20.", "q10 left.", "q20 left."}
        assert {r.columns["announced"] for r in rows} == {10, 20} and all(r.context for r in rows)


def test_too_few_responses_for_the_budgets_are_refused() -> None:
    with pytest.raises(ValueError, match="4 shares"):
        hbpo(group_size=3)
