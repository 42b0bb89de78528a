"""The page of HAPO, history-aware."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from policyopt.methods.length.hapo_history import RightLengths, hapo_history
from policyopt.objective import shaped
from policyopt.rows import Batch, make_batch


def batch(length: list[float], correct: list[float], record: float) -> Batch:
    """One prompt, whose record it is."""
    n = len(length)
    return make_batch(
        mask=torch.ones(n, 1, dtype=torch.float64),
        group=torch.zeros(n, dtype=torch.long),
        true_length=torch.tensor(length, dtype=torch.float64),
        correct=torch.tensor(correct, dtype=torch.float64),
        reward=torch.zeros(n, dtype=torch.float64),
        history=torch.tensor([[record, 0.0 if math.isnan(record) else 1.0]] * n, dtype=torch.float64),
    )


def reward(length: list[float], correct: float, record: float = 100.0) -> Tensor:
    return shaped(hapo_history(), batch(length, [correct] * len(length), record)).reward


def test_a_first_visit_has_the_reward_of_grpo() -> None:
    assert reward([1, 50, 900], 1.0, math.nan).tolist() == [1, 1, 1]
    assert reward([1, 50, 900], 0.0, math.nan).tolist() == [0, 0, 0]


def test_right_answers_are_paid_for_beating_the_record_down_to_a_floor() -> None:
    found = reward([50, 99, 100, 101, 149, 150, 1000], 1.0)
    assert (found[:2] > 1).all() and found[2] == pytest.approx(1) and found[3] < 1
    assert found[4] > 0.3 and found[5:].tolist() == pytest.approx([0.3, 0.3]), (
        "the floor is reached from 1.494 records on"
    )


def test_wrong_answers_are_never_paid_for_being_short() -> None:
    found = reward([1, 100, 120, 200, 5000], 0.0)
    assert found[:2].tolist() == pytest.approx([0, 0], abs=1e-12) and -1 < found[2] < 0
    assert found[3:].tolist() == pytest.approx([-1, -1])
    assert reward([1000], 1.0)[0] > found.max(), "the worst right answer beats the best wrong one"


def test_the_record_falls_and_wrong_answers_leave_it() -> None:
    memory = RightLengths()
    assert memory(batch([120, 80, 10], [1, 1, 0], 100.0))[0].tolist() == [80, 3]
    assert memory(batch([120, 180, 10], [1, 1, 0], 100.0))[0].tolist() == [100, 3], "it never rises"
    assert memory(batch([120, 180], [0, 0], 100.0))[0].tolist() == [100, 1]
    unseen = memory(batch([120], [0], math.nan))[0]
    assert unseen[0].isnan() and unseen[1] == 0
    assert RightLengths(record="mean")(batch([120, 80, 10], [1, 1, 0], 100.0))[0].tolist() == pytest.approx([100, 3])
