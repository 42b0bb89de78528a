"""The page of minirl."""

from __future__ import annotations

import torch

from policyopt.methods.ratio.minirl import minirl
from policyopt.parts import PPOClip
from tests.batches import on_policy, random_batch
from tests.methods.shared_ratios import dlogp, same, same_sampler


def test_the_mismatch_rescales_the_gradient_of_minirl_and_never_changes_the_mask() -> None:
    recipe = minirl(mismatch_cap=None)
    batch = random_batch(seed=4, drift=0.8)
    gap = (batch.old_logp - batch.rollout_logp).exp()
    got, plain = dlogp(recipe, batch), dlogp(recipe, same_sampler(batch))
    same(got, plain * gap)
    clipped = dlogp(recipe.replace(weight=(), surrogate=PPOClip(low=0.2, high=0.27)), batch)
    same(plain, clipped)
    assert (plain[batch.mask.bool()] == 0).any()
    capped = dlogp(minirl(mismatch_cap=1.01), batch)
    same(capped, plain * gap.clamp(max=1.01))


def test_a_response_of_minirl_counts_by_its_length() -> None:
    batch = on_policy(random_batch(groups=(4,), lengths=(6, 3, 6, 3)))
    got = dlogp(minirl(), batch.replace(rollout_logp=batch.old_logp, reward=torch.tensor([1.0, 1, 0, 0]).double()))
    same(got.sum(-1)[0], 2 * got.sum(-1)[1])
