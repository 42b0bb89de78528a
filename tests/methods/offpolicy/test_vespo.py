"""The page of vespo."""

from __future__ import annotations

import torch

from policyopt.methods.baseline.reinforce import reinforce
from policyopt.methods.offpolicy.vespo import GammaWeight, TrajectoryRatio, vespo
from policyopt.parts import Normalise, TokenMean
from tests.batches import dlogp, on_policy, random_batch
from tests.methods.shared_surrogates import same, tokens


def test_vespo_is_reinforce_with_group_advantage_on_policy() -> None:
    parent = reinforce(baseline="none", group_size=8).replace(advantage=Normalise(), aggregate=TokenMean())
    batch = on_policy(random_batch())
    same(dlogp(vespo(), batch), dlogp(parent, batch))
    far = random_batch()
    whole = dlogp(vespo(k_pos=1.0, lambda_pos=0.0, k_neg=1.0, lambda_neg=0.0), far)
    w = ((far.logp - far.old_logp) * far.mask).sum(-1).exp()
    same(whole, dlogp(parent, far) * w[:, None])


def test_the_gamma_weight_peaks_at_k_over_lambda_and_falls_to_zero() -> None:
    part = GammaWeight()
    w = torch.linspace(0.01, 4, 400, dtype=torch.float64)
    for a, peak in ((1.0, 2 / 3), (0.0, 2 / 3), (-1.0, 3 / 2)):
        phi = part(w.log()[None], tokens([0.0] * 400, a))[0]
        assert abs(float(w[phi.argmax()]) - peak) < 0.01
        assert float(part(torch.zeros(1, 1), tokens([0.0], a))) == 1
        assert part(torch.tensor([[-300.0, 5.0, 300.0]]), tokens([0.0] * 3, a)).abs().max() < 1e-12


def test_the_trajectory_ratio_is_a_product_that_may_hold_the_mismatch_of_the_sampler() -> None:
    batch = random_batch(gaps=True)
    gap = (batch.old_logp - batch.rollout_logp).exp()
    for i in range(9):
        mine = batch.mask[i].bool()
        ratio = (batch.logp - batch.old_logp)[i][mine].exp().prod()
        same(TrajectoryRatio()(batch)[i].exp(), ratio.expand(6))
        same(
            TrajectoryRatio(mismatch_cap=1.01)(batch)[i].exp(), (ratio * gap[i][mine].clamp(max=1.01).prod()).expand(6)
        )
    assert TrajectoryRatio().needs == frozenset()
    assert TrajectoryRatio(mismatch_cap=2.0).needs == {"rollout_logp"}
