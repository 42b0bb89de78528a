"""The page of reinforce-plus-plus."""

from __future__ import annotations

import pytest
import torch

from policyopt.methods.credit.reinforce_plus_plus import reinforce_plus_plus
from policyopt.methods.critic.ppo import ppo
from policyopt.methods.group.grpo import grpo
from policyopt.parts import Normalise
from policyopt.parts.advantage.gae import GAE
from tests.batches import random_batch, ready
from tests.methods.shared_credit import EQUAL_LENGTHS, same


def test_reinforce_plus_plus_whitens_tokens() -> None:
    batch = random_batch(gaps=True)
    for recipe in (reinforce_plus_plus(), reinforce_plus_plus("baseline"), reinforce_plus_plus(gamma=0.9, ddof=1)):
        tokens = ready(recipe, batch).advantage[batch.mask.bool()]
        assert float(tokens.mean()) == pytest.approx(0, abs=1e-12)
        assert float(tokens.var(correction=recipe.get("advantage.ddof"))) == pytest.approx(1)
    rows = Normalise(centre="none", scale="none", whiten="row")(batch)
    each = torch.stack([rows[i][batch.mask[i].bool()][0] for i in range(9)])
    torch.testing.assert_close(each, (batch.reward - batch.reward.mean()) / batch.reward.std(correction=1))


def test_reinforce_plus_plus_is_ppo_without_a_critic() -> None:
    batch = random_batch(gaps=True).replace(old_value=torch.zeros(9, 6, dtype=torch.float64))
    critic_free = ppo(kl_coef=0.2, vf_coef=0.0, epochs=1).replace(advantage=GAE(lam=1.0, ddof=0, whiten_eps=0.0))
    same(reinforce_plus_plus(kl_coef=0.2), critic_free, batch)
    discounted = critic_free.replace(advantage=GAE(gamma=0.8, lam=1.0, ddof=0, whiten_eps=0.0))
    same(reinforce_plus_plus(kl_coef=0.2, gamma=0.8), discounted, batch)


def test_reinforce_plus_plus_with_a_baseline_is_grpo_on_one_prompt_of_equal_lengths() -> None:
    batch = random_batch(groups=(9,), lengths=EQUAL_LENGTHS)
    parent = grpo(kl_coef=0.1, kl="k2").replace(advantage=Normalise(ddof=0, eps=0.0))
    same(reinforce_plus_plus("baseline", kl_coef=0.1), parent, batch)


def test_a_group_of_equal_rewards_is_not_silent_where_lengths_differ() -> None:
    batch = random_batch(groups=(3, 3, 3), lengths=(1, 2, 3, 6, 1, 1, 2, 2, 5))
    batch = batch.replace(reward=torch.tensor([1.0, 1, 1, 1, 0, 0, 0.2, 0.9, 0.4], dtype=torch.float64))
    advantage = reinforce_plus_plus("baseline", kl_coef=0.0).advantage(batch)
    centred = Normalise(scale="none")(batch)[batch.mask.bool()]
    wanted = -centred.mean() / centred.std(correction=0)
    torch.testing.assert_close(advantage[:3][batch.mask[:3].bool()], wanted.expand(6))
