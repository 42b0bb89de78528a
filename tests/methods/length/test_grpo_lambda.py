"""The page of GRPO-lambda."""

from __future__ import annotations

import pytest
import torch

from policyopt.methods.length.grpo_lambda import BestGroups, grpo_lambda
from policyopt.objective import credit, shaped
from policyopt.rows import Batch, make_batch

LENGTH = [100.0, 200.0, 300.0, 50.0, 60.0, 70.0]


def batch(correct: list[float], length: list[float] = LENGTH) -> Batch:
    """Two prompts with three responses each."""
    return make_batch(
        mask=torch.ones(6, 1, dtype=torch.float64),
        group=torch.tensor([0, 0, 0, 1, 1, 1]),
        true_length=torch.tensor(length, dtype=torch.float64),
        correct=torch.tensor(correct, dtype=torch.float64),
        reward=torch.zeros(6, dtype=torch.float64),
    )


def test_only_the_prompts_that_are_answered_best_pay_for_length() -> None:
    found = shaped(grpo_lambda(top=0.5), batch([1, 1, 1, 1, 0, 1])).reward
    assert found[3:].tolist() == [1, 0, 1]
    assert found[0] > found[1] > found[2] > 0.4 and found[1] == pytest.approx(0.7), "one of mean length has 1 - alpha/2"
    always = shaped(grpo_lambda(top=1.0), batch([1, 1, 1, 1, 0, 1])).reward
    assert always[3] > always[5] > 0 and always[4] == 0, "a wrong one pays nothing and gets nothing"
    assert always[:3].tolist() == found[:3].tolist()


def test_a_single_right_answer_has_half_the_price_whatever_its_length() -> None:
    found = shaped(grpo_lambda(top=1.0), batch([1, 0, 0, 0, 0, 0])).reward
    assert found.tolist() == pytest.approx([0.7, 0, 0, 0, 0, 0])
    assert not credit(grpo_lambda(), shaped(grpo_lambda(), batch([0] * 6))).advantage.any()


def test_the_share_is_rounded_up_and_of_equal_prompts_the_longer_ones_pay() -> None:
    assert BestGroups(top=0.2)(batch([1, 0, 0, 1, 0, 0])).tolist() == [True] * 3 + [False] * 3
    assert BestGroups(top=0.0)(batch([0, 0, 0, 1, 0, 0])).tolist() == [False] * 3 + [True] * 3
    assert BestGroups(top=0.6)(batch([0] * 6)).all()
