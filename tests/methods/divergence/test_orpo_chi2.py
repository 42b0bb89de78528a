"""The page of orpo-chi2."""

from __future__ import annotations

import math

import pytest
import torch

from policyopt.methods.critic.ppo import ppo
from policyopt.methods.divergence.orpo_chi2 import (
    OccupancyPenalty,
    SequenceDivergence,
    occupancy_distance,
    orpo_chi2,
    tamed_expm1,
    trimmed_mean,
)
from policyopt.parts.regularizer.kl import kl_estimate
from policyopt.rows import make_batch
from tests.batches import random_batch
from tests.methods.shared_divergence import distributions, same

# ORPO with chi-squared -------------------------------------------------------------------------------------------------


def test_at_the_reference_the_chi_squared_penalty_rests_on_its_floor() -> None:
    batch = random_batch()
    leaf = batch.ref_logp.clone().requires_grad_()
    part = SequenceDivergence(coef=0.3)
    loss = part(batch.replace(logp=leaf))
    assert float(loss.detach()) == pytest.approx(0.3e-2)
    assert not torch.autograd.grad(loss, leaf)[0].any()


def test_all_tokens_of_a_response_are_pushed_alike_and_back() -> None:
    batch = random_batch(gaps=True)
    leaf = batch.logp.clone().requires_grad_()
    part = SequenceDivergence(coef=1.0, kind="chi2", limit=50.0)
    found = torch.autograd.grad(part(batch.replace(logp=leaf)), leaf)[0]
    u = ((batch.logp - batch.ref_logp) * batch.mask).sum(-1, keepdim=True)
    torch.testing.assert_close(found, (u.exp() - (-u).exp()) / 9 * batch.mask)


def test_sequence_divergences_near_the_reference_and_far_from_it() -> None:
    batch = random_batch()
    near = batch.replace(logp=batch.ref_logp + 1e-4 * distributions(9, 6))
    u = ((near.logp - near.ref_logp) * near.mask).sum(-1)
    part = SequenceDivergence()
    assert float(part.estimate(near, "chi2")) == pytest.approx(float((u**2).mean()), rel=1e-3)
    assert float(part.estimate(near, "kl")) == pytest.approx(float((u**2).mean()) / 2, rel=1e-3)
    far = batch.replace(logp=batch.ref_logp + 1e4)
    assert part(far).isfinite()
    assert tamed_expm1(torch.tensor(12.0), 10.0).item() == pytest.approx(3 * math.exp(10) - 1, rel=1e-6)


def test_no_token_kl_tells_what_a_sequence_divergence_tells() -> None:
    """Two batches with the same token log-ratios, spread over the responses in another way."""
    mask, ref = torch.ones(2, 2, dtype=torch.float64), torch.full((2, 2), -1.0, dtype=torch.float64)
    apart, together = (
        make_batch(mask=mask, ref_logp=ref, logp=ref + torch.tensor(x, dtype=torch.float64))
        for x in ([[0.5, -0.5], [0.5, -0.5]], [[0.5, 0.5], [-0.5, -0.5]])
    )
    assert float(kl_estimate(apart.logp, ref, "k3").mean()) == float(kl_estimate(together.logp, ref, "k3").mean())
    assert float(SequenceDivergence().estimate(apart, "chi2")) == 0
    assert float(SequenceDivergence().estimate(together, "chi2")) > 1


def test_orpo_without_its_penalty_is_ppo() -> None:
    parent = ppo(0.4, 0.4, kl_coef=0.0)
    same(orpo_chi2(coef=0.0), parent, random_batch())
    same(orpo_chi2(coef=0.0, penalty="reward"), parent, random_batch())
    assert orpo_chi2().unit == "batch"


def test_the_scale_of_the_distance_is_trimmed() -> None:
    d = torch.tensor([-0.5, 0.1, 0.4, 9.0], dtype=torch.float64)
    grown = d.exp() - 1
    assert float(trimmed_mean(grown, 0.25)) == pytest.approx(float(grown[1:3].mean()))
    assert float(trimmed_mean(grown, 0.24)) == pytest.approx(float(grown.mean()))
    assert float(trimmed_mean(grown[:0], 0.1)) == 0
    torch.testing.assert_close(
        occupancy_distance(d, "sqrt-chi2", 0.25), occupancy_distance(d, "chi2", 0.25) / grown[1:3].mean().sqrt()
    )
    low = -d.abs()
    torch.testing.assert_close(occupancy_distance(low, "sqrt-chi2", 0.0), low.exp() - 1)


def test_a_penalty_in_the_reward_is_the_distance_of_the_response() -> None:
    batch = random_batch()
    after = OccupancyPenalty(coef=0.5, kind="kl")(batch)
    u = ((batch.old_logp - batch.ref_logp) * batch.mask).sum(-1)
    torch.testing.assert_close(after.reward, batch.reward - 0.5 * u)
