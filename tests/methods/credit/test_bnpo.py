"""The page of BNPO."""

from __future__ import annotations

import math

import pytest
import torch

from policyopt.methods.baseline.reinforce import reinforce
from policyopt.methods.credit.bnpo import BetaNormalise, bnpo
from policyopt.parts import PPOClip
from policyopt.rows import Batch
from tests.batches import random_batch
from tests.methods.shared_credit import EQUAL_LENGTHS, outcomes, same


def rates(*prompts: list[float]) -> Batch:
    """One group for each list of rewards."""
    return outcomes([r for rewards in prompts for r in rewards], [len(rewards) for rewards in prompts])


def test_rates_at_the_extremes_are_not_normalised_and_it_is_reinforce_with_a_mean_baseline() -> None:
    part, batch = BetaNormalise(), rates([1, 1], [0, 0], [1, 0])
    assert part.shape(batch)[0].tolist() == part.shape(batch)[1].tolist() == [1] * 6
    assert part(batch)[:, 0].tolist() == [0, 0, 0, 0, 0.5, -0.5]
    single = random_batch(groups=(4,), lengths=EQUAL_LENGTHS[:4])
    plain = reinforce(baseline="group-mean", group_size=8).replace(surrogate=PPOClip(low=0.2, high=0.28, dual=10.0))
    same(bnpo(), plain, single.replace(reward=single.reward.sigmoid()))


def test_a_density_of_one_and_a_half_is_the_deviation_of_a_coin() -> None:
    batch = rates([1, 0, 0, 0], [1, 1, 1, 0])  # mean 1/2, variance 1/8: a = b = 1/2
    part = BetaNormalise()
    assert part.shape(batch)[0][0] == part.shape(batch)[1][0] == pytest.approx(7 / 6)
    bunched = rates([1, 0, 0], [1, 1, 0], [1, 0], [1, 0])  # variance 1/54: more weight away from 1/2
    weight = part.weight(bunched)
    assert weight[0] == pytest.approx(float(weight[3]))
    assert weight[0] > weight[-1]
    p = torch.tensor([0.25, 0.75, 0.5], dtype=torch.float64)
    alpha = torch.full_like(p, 1.5)
    density = (torch.xlogy(alpha - 1, p * (1 - p)) - (2 * alpha.lgamma() - (2 * alpha).lgamma())).exp()
    torch.testing.assert_close(density, 8 / math.pi * (p * (1 - p)).sqrt())


def test_turning_the_rewards_round_turns_the_advantage_round() -> None:
    part, batch = BetaNormalise(), rates([1, 0, 0, 0], [1, 1, 0], [0, 0, 0, 1, 0])
    turned = batch.replace(reward=1 - batch.reward)
    torch.testing.assert_close(part(turned), -part(batch))
    torch.testing.assert_close(part.shape(turned)[0], part.shape(batch)[1])
    scaled = BetaNormalise(worst=-1.0, best=1.0)
    torch.testing.assert_close(scaled(batch.replace(reward=2 * batch.reward - 1)), part(batch))


def test_prompts_without_contrast_have_none_and_equal_rates_are_left_alone() -> None:
    part, batch = BetaNormalise(), rates([1, 1], [1, 0, 0, 0], [0, 1], [1])
    assert not part(batch)[[0, 1, 8]].any(), "whatever the weight, and in a row alone"
    equal = rates([1, 0], [0, 1])
    assert part.weight(equal).tolist() == [1] * 4
    assert (
        part(batch.to(torch.device("cpu")).replace(reward=batch.reward.float(), mask=batch.mask.float()))
        .isfinite()
        .all()
    )
    with pytest.raises(ValueError, match="best must be the larger"):
        BetaNormalise(worst=1.0, best=0.0)
    with pytest.raises(ValueError, match="at least 2"):
        bnpo(group_size=1)


def test_parts_of_the_reward_have_laws_of_their_own() -> None:
    batch = rates([1, 0, 0], [1, 1, 0], [0, 0, 0])
    batch = batch.replace(formatted=torch.tensor([1, 1, 0, 1, 0, 0, 1, 0, 0.0], dtype=torch.float64))
    both = bnpo(components=("correct", "formatted")).advantage
    assert both is not None
    part = BetaNormalise()
    torch.testing.assert_close(both(batch), (part(batch) + part(batch.replace(reward=batch.formatted))) / 2)
