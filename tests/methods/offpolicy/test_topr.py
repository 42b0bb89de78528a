"""The page of topr."""

from __future__ import annotations

import torch

from policyopt.methods.baseline.reinforce import reinforce
from policyopt.methods.offpolicy.topr import topr
from tests.batches import dlogp, on_policy, random_batch, ready


def test_good_responses_count_in_full_and_bad_ones_by_a_ratio_of_at_most_one() -> None:
    batch = random_batch().replace(reward=torch.tensor([1.0, 0, 1, 0, 1, 0, 0, 0, 1]).double(), token_reward=None)
    moved = torch.tensor([0.3, 0.3, -0.3, -0.3, 0.2, -0.2, 0.2, -0.1, 0.1]).double()
    batch = batch.replace(logp=batch.old_logp + moved[:, None])
    plain = reinforce(baseline="group-mean", group_size=8)
    ratio = ((batch.logp - batch.old_logp) * batch.mask).sum(1).exp()
    bad = ready(plain, batch).advantage.amin(1) < 0
    weight = torch.where(bad, ratio.clamp(max=1), 1.0)
    assert (weight[bad] < 1).any() and (ratio[~bad] > 1.1).any() and (ratio[bad] > 1.1).any()
    torch.testing.assert_close(dlogp(topr(), batch), dlogp(plain, batch) * weight[:, None])
    fresh = on_policy(batch)
    torch.testing.assert_close(dlogp(topr(), fresh), dlogp(plain, fresh))


def test_a_bad_response_that_is_all_but_gone_pushes_no_more() -> None:
    batch = random_batch().replace(reward=torch.full((9,), -1.0, dtype=torch.float64))
    gone = batch.replace(logp=batch.logp - 30)
    recipe = topr(baseline=0.0)
    assert dlogp(recipe, gone).abs().max() < 1e-8
    assert dlogp(recipe, gone.replace(reward=-gone.reward)).abs().max() > 0.1


def test_by_tokens_each_has_a_ratio_of_its_own() -> None:
    batch = random_batch(drift=0.8)
    plain = reinforce(baseline="group-mean", group_size=8)
    bad = ready(plain, batch).advantage < 0
    weight = torch.where(bad, (batch.logp - batch.old_logp).exp().clamp(max=1), 1.0)
    torch.testing.assert_close(dlogp(topr(whole=False), batch), dlogp(plain, batch) * weight)
