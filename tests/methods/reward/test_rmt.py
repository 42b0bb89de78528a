"""The page of rmt."""

from __future__ import annotations

import math

import pytest
import torch

from policyopt.methods.group.grpo import grpo
from policyopt.methods.reward.rmt import TierWeight, rmt
from policyopt.objective import shaped
from policyopt.parts import Correctness
from policyopt.steering import States, control
from tests.batches import random_batch
from tests.methods.shared_credit import lengths, same

# RMT -----------------------------------------------------------------------------------------------------------------


def test_rmt_without_length_and_tiers_is_grpo_on_right_and_wrong() -> None:
    batch = random_batch()
    third = (1 / 3,) * 3
    parent = grpo(kl_coef=0.0).replace(shape=(Correctness(wrong=0.0),))
    same(rmt(w=0.0, p1=third), parent, batch)


def test_the_budget_of_rmt_shrinks_by_equal_factors() -> None:
    recipe = rmt(b0=700, gamma=0.3, b_min=250, total_steps=10)
    states: States = {}
    budgets, shares = [], []
    for _ in range(13):
        recipe = control(recipe, {}, states)
        budgets.append(recipe.get("shape.LengthReward.reference"))
        shares.append(recipe.get("weight.TierWeight.share"))
    assert budgets == [max(250, math.floor(700 * 0.3 ** (min(t, 10) / 10))) for t in range(13)]
    assert [tuple(round(x, 9) for x in s) for s in (shares[0], shares[3], shares[5], shares[7], shares[12])] == [
        (0.6, 0.3, 0.1), (0.6, 0.3, 0.1), (0.35, 0.3, 0.35), (0.1, 0.3, 0.6), (0.1, 0.3, 0.6),
    ]  # fmt: skip
    assert all(sum(s) == pytest.approx(1) for s in shares)


def test_the_length_reward_of_rmt_is_a_triangle_over_the_budget() -> None:
    recipe = rmt(b0=20, w=0.5, r_max=2.0)
    got = shaped(recipe, lengths(0, 10, 20, 30, 40, 70)).reward
    torch.testing.assert_close(got.tolist(), [0.5 + 0.5 * x for x in (0.0, 1.0, 2.0, 1.0, 0.0, 0.0)])


def test_tiers_weigh_as_if_a_tier_had_been_drawn_first() -> None:
    batch = random_batch(groups=(2, 3, 1, 2, 1), lengths=(3,) * 9)
    entropy = torch.tensor([0.5, 0.1, 0.9, 0.3, 0.7], dtype=torch.float64)[batch.group]
    batch = batch.replace(sampled_entropy=entropy[:, None].expand(9, 6))
    part = TierWeight(share=(0.5, 0.3, 0.2))
    assert part.tiers(batch).tolist() == [1, 1, 0, 0, 0, 2, 0, 0, 1]
    weight = part(batch.mask, batch)[:, 0]
    prompts = weight[[0, 2, 5, 6, 8]]
    torch.testing.assert_close(
        prompts, 5 * torch.tensor([0.3 / 2, 0.5 / 2, 0.2, 0.5 / 2, 0.3 / 2], dtype=torch.float64)
    )
    one = batch[batch.group == 0]
    torch.testing.assert_close(part(one.mask, one), torch.ones(2, 6, dtype=torch.float64))
