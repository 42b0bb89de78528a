"""The page of remax."""

from __future__ import annotations

import torch

from policyopt.methods.baseline.remax import remax
from policyopt.parts import RolloutBaseline
from tests.batches import dlogp, random_batch, ready
from tests.methods.shared_limits import alike


def test_the_greedy_response_itself_has_no_gradient_and_a_bonus_for_the_prompt_none() -> None:
    batch = random_batch()
    recipe = remax(kl_coef=0.0)
    assert (dlogp(recipe, batch.replace(reward=batch.baseline_reward)) == 0).all()
    bonus = batch.group * 0.7
    moved = batch.replace(reward=batch.reward + bonus, baseline_reward=batch.baseline_reward + bonus)
    alike(dlogp(recipe, moved), dlogp(recipe, batch))


def test_remax_discounts_even_the_last_token_and_counts_a_kl_where_it_falls() -> None:
    batch = random_batch(groups=(1,), lengths=(3,)).replace(
        reward=torch.tensor([9.0]), baseline_reward=torch.tensor([1.0])
    )
    recipe = remax(gamma=0.9, kl_coef=0.1, reward_clip=5.0)
    kl = (batch.old_logp - batch.ref_logp)[0]
    wanted = torch.tensor([5 * 0.9**3, 5 * 0.9**2, 5 * 0.9, 0, 0, 0]) - 0.1 * kl * batch.mask[0]
    alike(ready(recipe, batch).advantage[0], wanted)
    for clip, gain in ((None, 8.0), (6.0, 6.0)):
        plain = remax(kl_coef=0.0, reward_clip=clip)
        alike(ready(plain, batch).advantage[0], gain * batch.mask[0])
        turned = batch.replace(reward=batch.baseline_reward, baseline_reward=batch.reward)
        alike(ready(plain, turned).advantage[0], -gain * batch.mask[0])
    assert RolloutBaseline().gamma == 1.0  # the paper's
