"""The page of dapo."""

from __future__ import annotations

from dataclasses import replace

import torch

from policyopt.methods.clip.dapo import dapo, overlong
from policyopt.methods.group.grpo import grpo
from policyopt.objective import shaped
from policyopt.rows import make_batch
from tests.batches import dlogp, on_policy, random_batch
from tests.methods.shared_limits import alike


def test_grpo_weighs_responses_the_same_and_dapo_tokens() -> None:
    batch = on_policy(random_batch(groups=(2,), lengths=(2, 6)))
    responses = dlogp(grpo(kl_coef=0.0), batch).sum(-1).abs()
    alike(responses[0], responses[1])
    tokens = dlogp(dapo().replace(shape=()), batch).abs()
    alike(tokens[1], tokens[0, 0].expand(6))


def test_dapo_without_its_four_repairs_is_grpo() -> None:
    batch = random_batch(lengths=(4,) * 9)
    bare = dapo(high=0.2).replace(shape=(), filter=())
    alike(dlogp(bare, batch), dlogp(grpo(kl_coef=0.0), batch))
    assert not torch.allclose(dlogp(dapo(high=0.28).replace(shape=()), batch), dlogp(bare, batch))


def test_the_overlong_penalty_is_a_ramp_over_the_last_share_of_the_budget() -> None:
    length = torch.arange(0, 131, dtype=torch.float64)
    budget = torch.full((131,), 100)
    batch = make_batch(mask=torch.zeros(131, 1), reward=torch.zeros(131).double(), true_length=length, budget=budget)
    penalty = overlong(share=0.2)(batch).reward
    assert (penalty[:81] == 0).all()
    assert (penalty[100:] == -1).all()
    alike(penalty[80:101].diff(), torch.full((20,), -0.05, dtype=torch.float64))
    alike(replace(overlong(share=0.2), coef=3.0)(batch).reward, 3 * penalty)


def test_dapo_rewards_right_and_wrong_with_one_and_less_one() -> None:
    batch = random_batch(lengths=(1,) * 9)
    alike(shaped(dapo(), batch).reward, 2 * batch.correct - 1)
