"""The page of LongWriter-Zero."""

from __future__ import annotations

import pytest
import torch

from policyopt.methods.reward.longwriter_zero import longwriter_zero, repeated
from policyopt.parts import LengthRange
from tests.batches import random_batch, ready

RECIPE = longwriter_zero(lower=3.0, upper=5.0, most=9.0)


def test_no_reward_rules_by_its_scale_and_a_constant_one_adds_nothing() -> None:
    batch = random_batch(groups=(4, 3))
    first = ready(RECIPE, batch).advantage
    scaled = ready(RECIPE, batch.replace(reward=1000 * batch.reward + 7)).advantage
    torch.testing.assert_close(first, scaled, atol=1e-4, rtol=1e-4)
    flat = ready(RECIPE, batch.replace(reward=torch.ones(7).double())).advantage
    assert not torch.allclose(first, flat) and flat.any(), "length and form are left"


def test_the_reward_for_length_is_one_inside_and_zero_from_the_maximum_on() -> None:
    length = torch.tensor([0.0, 2.0, 4.0, 5.0, 6.0, 8.0, 9.0])
    batch = random_batch(groups=(7,)).replace(true_length=length.double())
    value = LengthRange(lower=4.0, upper=6.0, most=8.0).value(batch)
    assert value.tolist() == [0, 0.5, 1, 1, 1, 0, 0]
    with pytest.raises(ValueError, match="have to rise"):
        LengthRange(lower=4.0, upper=3.0)


def test_repeating_a_line_lowers_the_form() -> None:
    one, two = [5, 6, 7, 1], [5, 6, 8, 1]
    rows = torch.tensor([one + two + [9, 9, 9, 1], one + two + one, one + one + one, two + [0] * 8])
    mask = torch.ones(4, 12).double()
    mask[3, 4:] = 0
    ends = torch.tensor([[3, 7, 11], [3, 7, 11], [3, 7, 11], [3, -1, -1]])
    torch.testing.assert_close(repeated(rows, mask, ends), torch.tensor([0, 1 / 3, 2 / 3, 0]).double())
    poisoned = rows.clone()
    poisoned[3, 4:] = 77
    torch.testing.assert_close(repeated(poisoned, mask, ends), repeated(rows, mask, ends))
