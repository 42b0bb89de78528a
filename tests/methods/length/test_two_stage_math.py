"""The page of Fast-Math-R1."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from policyopt.methods.length.two_stage_math import two_stage_math
from policyopt.objective import shaped
from policyopt.rows import make_batch


def reward(correct: list[float], length: list[float], formatted: float = 0.0) -> Tensor:
    n = len(correct)
    batch = make_batch(
        mask=torch.ones(n, 1, dtype=torch.float64),
        group=torch.zeros(n, dtype=torch.long),
        true_length=torch.tensor(length, dtype=torch.float64),
        correct=torch.tensor(correct, dtype=torch.float64),
        formatted=torch.full((n,), formatted, dtype=torch.float64),
        reward=torch.zeros(n, dtype=torch.float64),
    )
    return shaped(two_stage_math(max_len=100.0), batch).reward


def test_alone_a_short_wrong_answer_is_worth_least_and_a_long_one_nearly_nothing() -> None:
    alone = [reward([c], [x])[0].item() for c, x in ((1, 0), (1, 100), (1, 999), (0, 0), (0, 100), (0, 999))]
    assert alone == pytest.approx([1.0, 0.1, 0.1, -1.0, -0.1, -0.1])


def test_among_a_group_the_longest_pays_a_half_and_wrong_ones_never_gain() -> None:
    found = reward([1, 1, 0, 0], [100, 500, 100, 500])
    assert found.tolist() == pytest.approx([0.1 + 0.5, 0.1 - 0.5, -0.1, -0.1 - 0.5])
    assert reward([1, 0], [100, 100], formatted=1.0).tolist() == pytest.approx([1.1, 0.9]), (
        "equal lengths know no order"
    )
