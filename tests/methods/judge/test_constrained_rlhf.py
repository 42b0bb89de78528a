"""The page of constrained-rlhf."""

from __future__ import annotations

import pytest
import torch

from policyopt.methods.judge.constrained_rlhf import ConstrainedAdvantage, constrained_rlhf
from policyopt.steering import control
from tests.batches import random_batch, ready
from tests.methods.shared_judges import same, with_components

# Constraints ---------------------------------------------------------------------------------------------------------


def test_without_multipliers_constrained_rlhf_only_stays_close() -> None:
    batch = ready(constrained_rlhf(group_size=2), random_batch())
    part = ConstrainedAdvantage(equality=True)
    same(part(batch), part(batch.replace(correct=1 - batch.correct, formatted=batch.formatted * 0)))
    moved = ConstrainedAdvantage(lagrange=(0.5, 0.0))
    assert not torch.allclose(moved(batch), part(batch))
    scaled = with_components(batch, correct=(batch.correct * 7 + 3).tolist())
    torch.testing.assert_close(moved(scaled), moved(batch), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("equality", [True, False])
def test_a_multiplier_moves_towards_the_threshold_and_stays_there(equality: bool) -> None:
    recipe = constrained_rlhf(equality=equality, threshold=(0.5, 0.5))
    low = control(recipe, {"accuracy": 0.1, "format": 0.5}, {})
    high = control(recipe, {"accuracy": 0.9, "format": 0.5}, {})
    assert low.get("advantage.lagrange")[0] > 0 > high.get("advantage.lagrange")[0]
    assert low.get("advantage.lagrange")[1] == high.get("advantage.lagrange")[1] == 0
    assert control(recipe, {}, {}) == recipe
