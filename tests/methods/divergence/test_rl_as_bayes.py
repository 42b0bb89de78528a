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


def test_centred_weights_have_the_mean_0_and_are_all_0_at_the_posterior() -> None:
    batch = random_batch()
    plain, centred = PosteriorWeight(beta=0.5)(batch), PosteriorWeight(beta=0.5, centred=True)(batch)
    torch.testing.assert_close(plain - centred, batch.mask)
    per_token = (batch.total_reward() / 0.5 / batch.mask.sum(-1))[:, None] * batch.mask
    there = batch.replace(old_logp=batch.ref_logp + per_token)
    assert PosteriorWeight(beta=0.5, centred=True)(there).abs().max() < 1e-12
    assert rl_as_bayes(direction="forward", centred=True).advantage == PosteriorWeight(beta=0.1, centred=True)


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
