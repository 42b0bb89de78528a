"""The page of PALU."""

from __future__ import annotations

import pytest
import torch

from policyopt.methods.length.palu import ShrinkingBudget, palu
from policyopt.objective import shaped
from policyopt.rows import Batch, make_batch


def batch(length: list[float], correct: list[float], budget: int = 100, truncated: list[float] | None = None) -> Batch:
    n = len(length)
    return make_batch(
        mask=torch.ones(n, 1, dtype=torch.float64),
        group=torch.zeros(n, dtype=torch.long),
        true_length=torch.tensor(length, dtype=torch.float64),
        correct=torch.tensor(correct, dtype=torch.float64),
        reward=torch.ones(n, dtype=torch.float64),
        truncated=torch.tensor(truncated or [0.0] * n, dtype=torch.float64),
        budget=torch.full((n,), budget),
    )


def budget(part: ShrinkingBudget, *args: object) -> float:
    return float(part(batch(*args))[0, 0])  # type: ignore[arg-type]


def test_enough_successes_shrink_the_budget_and_too_few_restore_it() -> None:
    rows = ([10, 20, 30, 40, 99], [1, 1, 1, 1, 0])
    assert budget(ShrinkingBudget(), *rows) == pytest.approx(100 - (40 - 25))
    assert budget(ShrinkingBudget(success=0.81), *rows) == 0, "the whole budget of the run again"
    assert budget(ShrinkingBudget(success=1.01), [10, 20], [1, 1]) == 0


def test_the_share_that_may_be_lost_says_how_far() -> None:
    rows = ([10, 20, 30, 40, 50], [1] * 5)
    assert budget(ShrinkingBudget(tau=0.0), *rows) == 100
    assert budget(ShrinkingBudget(tau=1.0), *rows) == 100 - 40
    assert budget(ShrinkingBudget(), [30, 30, 30], [1, 1, 1]) == 100, "equal lengths leave it"
    assert budget(ShrinkingBudget(tau=1.0, least=80), *rows) == 80


def test_what_was_cut_or_lies_beyond_the_budget_has_failed() -> None:
    assert budget(ShrinkingBudget(), [10, 100], [1, 1], 100, [0.0, 1.0]) == 0
    assert budget(ShrinkingBudget(), [10, 150], [1, 1], 100) == 0
    cut = shaped(palu(), batch([10, 100], [1, 1], 100, [0.0, 1.0])).reward
    assert cut.tolist() == [1, 0]
