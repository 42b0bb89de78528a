"""The page of rto."""

from __future__ import annotations

import torch

from policyopt.methods.critic.ppo import ppo
from policyopt.methods.critic.rto import ImplicitTokenReward, rto
from policyopt.objective import shaped
from policyopt.rows import Batch
from tests.batches import random_batch
from tests.methods.shared_limits import alike


def told() -> Batch:
    batch = random_batch()
    return batch.replace(**{"logp_of[dpo]": batch.teacher_logp, "token_reward": None, "reward": 15 * batch.reward - 4})


def test_without_bounds_the_rewards_add_up_to_the_implicit_reward_of_dpo() -> None:
    batch = told()
    dense = ImplicitTokenReward(coef=0.3, clip=None).dense(batch)
    alike(dense.sum(-1), 0.3 * ((batch.teacher_logp - batch.ref_logp) * batch.mask).sum(-1))


def test_the_bound_acts_after_the_scale_and_on_the_reward_of_the_response() -> None:
    batch = told()
    part = ImplicitTokenReward(coef=0.3, clip=0.1, reward_clip=2.0)
    dense = part.dense(batch)
    assert dense.abs().max() == 0.1
    assert ((dense.abs() < 0.1) & batch.mask.bool()).any()
    assert not dense[batch.mask == 0].any()
    alike(part(batch).reward, batch.reward.clamp(-2, 2))
    assert (batch.reward > 2).any()


def test_without_a_preference_model_it_is_ppo() -> None:
    batch = told()
    plain = shaped(ppo(kl_coef=0.01), batch)
    for other in (
        shaped(rto(beta1=0.0, reward_clip=None), batch),
        shaped(rto(reward_clip=None), batch.replace(**{"logp_of[dpo]": batch.ref_logp})),
    ):
        alike(other.token_reward, plain.token_reward)
        alike(other.reward, plain.reward)
    assert rto().critic is not None
    assert isinstance(rto().critic, type(ppo().critic))
    assert torch.isfinite(plain.token_reward).all()
