"""The page of ConciseR."""

from __future__ import annotations

import torch
from torch import Tensor

from policyopt.methods.length.conciser import conciser
from policyopt.objective import credit, shaped
from policyopt.rows import make_batch


def advantage(correct: list[float], length: list[float], coef: float = 1.0) -> Tensor:
    n = len(correct)
    batch = make_batch(
        mask=torch.ones(n, 1, dtype=torch.float64),
        group=torch.zeros(n, dtype=torch.long),
        true_length=torch.tensor(length, dtype=torch.float64),
        correct=torch.tensor(correct, dtype=torch.float64),
        reward=torch.zeros(n, dtype=torch.float64),
        budget=torch.full((n,), 400),
    )
    recipe = conciser(coef=coef).set("advantage.eps", 0.0)
    return credit(recipe, shaped(recipe, batch)).advantage[:, 0]


def test_a_group_with_a_wrong_answer_knows_no_length() -> None:
    assert torch.equal(advantage([1, 0, 1], [10, 20, 30]), advantage([1, 0, 1], [300, 2, 1]))


def test_a_group_of_right_answers_is_ordered_by_length_whatever_the_coefficient() -> None:
    length = torch.tensor([10.0, 250.0, 30.0, 700.0], dtype=torch.float64)
    found = advantage([1, 1, 1, 1], length.tolist())
    torch.testing.assert_close(found, (length.mean() - length) / length.std())
    torch.testing.assert_close(advantage([1, 1, 1, 1], length.tolist(), coef=0.01), found)
    assert not advantage([1, 1], [50, 50], coef=0.5).nan_to_num().any()


def test_the_first_stage_draws_groups_of_one_outcome_again_and_the_second_keeps_them() -> None:
    first, second = conciser(stage="ability"), conciser()
    assert first.filter and not second.filter
    assert first.get("regularizers.EntropyBonus.coef") > 0 and not second.regularizers
