"""The page of cispo."""

from __future__ import annotations

import torch

from policyopt.methods.baseline.reinforce import reinforce
from policyopt.methods.clip.cispo import cispo
from policyopt.parts import LogProb, Normalise, PPOClip, RatioTimesAdvantage, TokenMean
from policyopt.recipe import Recipe
from tests.batches import dlogp, on_policy, random_batch, ready
from tests.methods.shared_limits import alike

# CISPO ---------------------------------------------------------------------------------------------------------------


def test_cispo_on_policy_is_reinforce_with_a_token_mean() -> None:
    batch = on_policy(random_batch())
    score = reinforce(baseline="none", group_size=2).replace(advantage=Normalise(), aggregate=TokenMean())
    alike(dlogp(cispo(), batch), dlogp(score, batch))


def ppo_of_cispo(**bounds: float) -> Recipe:
    return cispo().replace(weight=(), surrogate=PPOClip(**bounds))


def test_cispo_silences_no_token_and_bounds_every_one() -> None:
    batch = random_batch(drift=2.0)
    recipe = cispo(high=0.2)
    advantage = ready(recipe, batch).advantage
    gradient, mine = dlogp(recipe, batch).abs(), batch.mask.bool()
    assert (gradient[mine] > 0).all()
    assert (gradient <= 1.2 * advantage.abs() / batch.mask.sum() * (1 + 1e-12)).all()
    assert (dlogp(ppo_of_cispo(low=0.2, high=0.2), batch)[mine] == 0).any()


def test_cispo_and_ppo_agree_inside_the_window() -> None:
    batch = random_batch()
    ratio = (batch.logp - batch.old_logp).exp()
    inside = (ratio > 0.8) & (ratio < 1.2) & batch.mask.bool()
    mine, parent = (dlogp(r, batch) for r in (cispo(low=0.2, high=0.2), ppo_of_cispo(low=0.2, high=0.2)))
    alike(mine[inside], parent[inside])
    assert not torch.allclose(mine, parent)


def test_cispo_with_a_score_function_and_no_truncation_is_the_ratio_surrogate() -> None:
    batch = random_batch()
    free = cispo(high=None)
    assert isinstance(free.surrogate, LogProb)
    alike(dlogp(free, batch), dlogp(free.replace(weight=(), surrogate=RatioTimesAdvantage()), batch))
