"""The page of stablereinforce."""

from __future__ import annotations

import pytest
import torch

from policyopt.methods.clip.stablereinforce import SigmaFilter, stablereinforce
from policyopt.objective import shaped
from policyopt.rows import make_batch
from tests.batches import gradients, random_batch
from tests.methods.shared_ratios import same, tokens

# Credit --------------------------------------------------------------------------------------------------------------


def test_outliers_are_dropped_and_the_others_not_standardised_again() -> None:
    batch = random_batch(groups=(2, 2), lengths=(6, 6, 6, 3))
    advantage = torch.linspace(-1, 1, 24, dtype=torch.float64).reshape(4, 6)
    advantage[1, 2] = 30.0
    z = SigmaFilter(sigma=3.0).filtered(advantage, batch.mask)
    inside = advantage[batch.mask.bool()]
    wanted = (advantage - inside.mean()) / inside.std(unbiased=False) * batch.mask
    wanted[1, 2] = 0
    same(z, wanted)
    assert not SigmaFilter().filtered(torch.full_like(batch.mask, 0.1), batch.mask).any()


def test_the_reward_to_go_of_stablereinforce_carries_the_penalty_of_each_token() -> None:
    batch = shaped(stablereinforce(kl_coef=0.5), random_batch())
    to_go = SigmaFilter().of(batch)
    for i in range(9):
        left = batch.token_reward[i].flip(-1).cumsum(-1).flip(-1) + batch.reward[i]
        same(to_go[i], left * batch.mask[i])


def test_an_exploding_ratio_has_a_finite_loss_and_no_gradient() -> None:
    recipe = stablereinforce()
    batch = tokens([1.0, 1.1], [-1.0, -1.0])
    far = batch.replace(logp=torch.stack([batch.old_logp[:, 0] + 500, batch.logp[:, 1]], dim=1))
    loss, got = gradients(recipe, far)
    assert float(loss) == pytest.approx((1000 + 1.1) / 2)
    assert got["logp"][0].tolist() == pytest.approx([0.0, 1.1 / 2])


def test_rewards_of_stablereinforce_are_ordered() -> None:
    def reward(correct: float, consistency: float | None, formatted: float) -> float:
        columns = {} if consistency is None else {"consistency": torch.tensor([consistency])}
        one = torch.ones(1)
        batch = make_batch(
            mask=one[:, None], reward=0 * one, correct=correct * one, formatted=formatted * one, **columns
        )
        return float(shaped(stablereinforce(kl_coef=0.0), batch).reward)

    assert [reward(1, 1, 1), reward(1, 0, 1), reward(1, -1, 1), reward(1, None, 0)] == [2.0, 1.5, 1.0, 1.0]
    assert reward(0, 1, 1) == reward(0, -1, 1) == 0.5
