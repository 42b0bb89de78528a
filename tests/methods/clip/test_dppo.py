"""The page of dppo."""

from __future__ import annotations

import pytest
import torch

from policyopt.methods.clip.dppo import DivergenceBounds, binary_kl, dppo
from policyopt.parts import LogProb, RatioTimesAdvantage
from tests.batches import dlogp, on_policy, random_batch


@pytest.mark.parametrize("divergence", ["tv", "kl"])
def test_at_a_bound_the_divergence_is_the_limit_and_rare_tokens_may_move_further(divergence: str) -> None:
    q = torch.tensor([[1e-6, 1e-3, 0.1, 0.5, 0.9, 0.95]], dtype=torch.float64)
    batch = random_batch(groups=(1,), lengths=(6,)).replace(old_logp=q.log())
    low, high = DivergenceBounds(divergence=divergence)(0.05, 0.02, torch.zeros_like(q), batch)  # type: ignore[arg-type]
    assert bool((high > 1).all()) and bool((low < 1).all())
    assert bool((high.diff() < 0).all()) and bool((low.diff() >= 0).all())
    for bound, limit in ((low, 0.05), (high, 0.02)):
        there = (bound > 1e-8) & (bound * q < 1)
        found = (bound * q - q).abs() if divergence == "tv" else binary_kl(q, bound.log())
        torch.testing.assert_close(found[there], torch.full_like(found, limit)[there], rtol=1e-6, atol=1e-9)
        assert there.sum() >= 2


@pytest.mark.parametrize("divergence", ["tv", "kl"])
def test_certain_and_impossible_tokens_have_finite_bounds(divergence: str) -> None:
    old = torch.tensor([[0.0, -1e-9, -80.0, -1e-4]])
    batch = random_batch(groups=(1,), lengths=(4,), dtype=torch.float32).replace(old_logp=old)
    low, high = DivergenceBounds(divergence=divergence)(0.1, 0.1, torch.zeros_like(old), batch)  # type: ignore[arg-type]
    assert not low.isnan().any() and not high.isnan().any()
    assert bool((low <= 1).all()) and bool((high >= 1).all())


def test_on_policy_nothing_is_masked_and_without_bounds_the_gradient_is_that_of_the_ratio() -> None:
    free = dppo(low=None, high=None)
    plain = free.replace(surrogate=RatioTimesAdvantage(), weight=())
    far = random_batch(drift=0.8)
    torch.testing.assert_close(dlogp(free, far), dlogp(plain, far))
    fresh = on_policy(far)
    torch.testing.assert_close(dlogp(dppo(), fresh), dlogp(plain.replace(surrogate=LogProb()), fresh))
