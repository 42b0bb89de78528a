"""The page of gcpo."""

from __future__ import annotations

import torch
from torch import Tensor

from policyopt.methods.reward.gcpo import ContrastiveBonus, gcpo
from policyopt.objective import shaped
from policyopt.rows import Batch, make_batch


def told(correct: list[float], shown: list[float], groups: list[int]) -> Batch:
    n = len(correct)
    mask = torch.ones(n, 2, dtype=torch.float64)
    right = torch.tensor(correct, dtype=torch.float64)
    span = torch.tensor(shown, dtype=torch.float64)[:, None] * torch.tensor([0.0, 1.0])
    return make_batch(
        mask=mask, correct=right, formatted=torch.zeros_like(right), reward=right, group=torch.tensor(groups),
        budget=torch.full((n,), 4), **{"span[Regex]": span},
    )  # fmt: skip


def sign(correct: list[float], shown: list[float], groups: list[int], epsilon: float = 0.05) -> list[float]:
    found: Tensor = ContrastiveBonus(epsilon=epsilon).sign(told(correct, shown, groups))
    return found.tolist()


def test_the_sign_is_that_of_what_the_behaviour_brings() -> None:
    assert sign([1, 1, 0, 0], [1, 1, 0, 0], [0] * 4) == [1] * 4
    assert sign([1, 1, 0, 0], [0, 0, 1, 1], [0] * 4) == [-1] * 4
    assert sign([1, 0, 1, 0], [1, 1, 0, 0], [0] * 4) == [0] * 4
    assert sign([1, 0, 0, 1], [1, 1, 0, 0], [0, 1, 0, 1]) == [1, -1, 1, -1], "each prompt by itself"
    assert sign([1, 1, 0, 0], [1, 1, 0, 0], [0] * 4, epsilon=1.0) == [0] * 4


def test_where_all_or_none_do_it_there_is_no_bonus() -> None:
    assert sign([1, 0, 1], [1, 1, 0], [0, 0, 1]) == [0, 0, 0]
    batch = told([1, 0, 1, 0], [1, 1, 1, 1], [0] * 4)
    assert torch.equal(shaped(gcpo(), batch).reward, shaped(gcpo(bonus=0.0), batch).reward)


def test_right_and_wrong_users_get_the_same_and_length_pays_for_all() -> None:
    batch = told([1, 1, 0, 0], [1, 1, 1, 0], [0] * 4)
    found = shaped(gcpo(bonus=0.2, length_weight=0.1), batch).reward - batch.correct
    torch.testing.assert_close(found, torch.tensor([0.25, 0.25, 0.25, 0.05], dtype=torch.float64))
