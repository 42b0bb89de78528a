"""The page of rl-as-bayes."""

from __future__ import annotations

import pytest
import torch

from policyopt.methods.baseline.reinforce import reinforce
from policyopt.methods.divergence.rl_as_bayes import PosteriorGap, PosteriorWeight, rl_as_bayes
from tests.batches import random_batch


def test_posterior_weights_of_extreme_rewards_stay_finite() -> None:
    batch = random_batch().replace(reward=1e4 * random_batch().reward)
    weight = PosteriorWeight(beta=1e-3)(batch)
    assert weight.isfinite().all()
    for g in range(3):
        rows = batch.group == g
        assert float(weight[rows].amax(1).mean()) == pytest.approx(1)


def test_without_its_kl_rl_as_bayes_is_reinforce() -> None:
    plain = rl_as_bayes().replace(shape=(), probes=())
    assert plain == reinforce(group_size=4)


def test_the_gap_to_the_posterior() -> None:
    reward = torch.tensor([[1.0, 0.0, 0.5], [0.2, 0.2, 0.9]], dtype=torch.float64)
    probe = PosteriorGap(beta=0.5)
    there = probe.samples(reward, reward / 0.5 - 3)  # log-ratio of the posterior: log Z is 3
    assert there["posterior/gap"] == pytest.approx(0)
    assert there["posterior/ess"] == pytest.approx(1)
    assert there["posterior/log_evidence"] == pytest.approx(3)
    at_start = probe.samples(reward, torch.zeros_like(reward))
    assert at_start["posterior/gap"] > 0
    assert at_start["posterior/objective"] == pytest.approx(float(reward.mean()))
    assert at_start["posterior/ess"] < 1
