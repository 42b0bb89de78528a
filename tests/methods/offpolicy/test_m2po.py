"""The page of m2po."""

from __future__ import annotations

import math

import pytest
import torch

from policyopt.methods.offpolicy.m2po import SecondMomentBounds, m2po
from policyopt.parts import TokenRatio
from tests.batches import dlogp, on_policy, random_batch, ready


@pytest.mark.parametrize("budget", [0.02, 0.1, 0.3])
def test_no_more_is_clipped_than_it_takes(budget: float) -> None:
    """The authors' rule, token by token: the largest bound among the log-ratios under which the capped mean is below the budget."""
    recipe = m2po(budget=budget, low=0.0, high=0.0)
    batch = ready(recipe, random_batch(seed=4, drift=0.8))
    d = TokenRatio()(batch)
    harm = (batch.mask > 0) & (batch.advantage * d > 0)
    v = sorted((d[harm] ** 2).tolist())
    stay = max(k for k, top in enumerate(v) if sum(min(x, top) for x in v) < budget * len(v))
    tau = float(SecondMomentBounds(budget=budget).threshold(d, batch))
    if stay == len(v) - 1:
        assert tau == math.inf
    else:
        assert math.sqrt(v[stay]) < tau < math.sqrt(v[stay + 1])
        silent = (dlogp(recipe, random_batch(seed=4, drift=0.8)) == 0) & (batch.mask > 0) & (batch.advantage != 0)
        assert int(silent.sum()) == len(v) - 1 - stay
        assert torch.equal(silent, harm & (d.abs() > tau))


def test_within_the_budget_and_with_nothing_to_count_there_is_no_bound() -> None:
    bounds = SecondMomentBounds()
    for batch in (on_policy(random_batch()), random_batch().replace(mask=torch.zeros(9, 6, dtype=torch.float64))):
        batch = ready(m2po(), batch)
        low, high = bounds(0.3, 0.5, TokenRatio()(batch), batch)
        assert float(low) == 0 and float(high) == math.inf


def test_the_bounds_are_never_narrower_than_asked_for() -> None:
    batch = ready(m2po(), random_batch(drift=0.8))
    low, high = SecondMomentBounds(budget=1e-9)(0.3, 0.5, TokenRatio()(batch), batch)
    assert float(low) == pytest.approx(0.7, abs=0.05) and float(low) <= 0.7
    assert float(high) == pytest.approx(1.5, abs=0.05) and float(high) >= 1.5
