"""The page of reg-grpo."""

from __future__ import annotations

import pytest
import torch

from policyopt.methods.contrast.reg_grpo import reg_grpo
from policyopt.methods.offpolicy.vespo import TrajectoryRatio
from policyopt.parts import RatioTimesAdvantage
from tests.batches import dlogp, gradients, on_policy, random_batch, ready
from tests.methods.shared_surrogates import PLAIN, same


def test_reg_grpo_fits_the_direction_alone() -> None:
    recipe = reg_grpo(kl_coef=0.0)
    batch = random_batch(groups=(4, 3), lengths=(1,) * 7)
    old = batch.old_logp
    loss, got = gradients(recipe, ready(recipe, batch))
    moved = batch.replace(logp=old + 2.5 * (batch.logp - old) + 0.3)
    same(gradients(recipe, ready(recipe, moved))[0], loss, 1e-4)
    slopes, rho = got["logp"][:, 0], (batch.logp - old)[:, 0]
    expected = 0.0
    for g, size in ((0, 4), (1, 3)):
        rows = batch.group == g
        assert abs(float(slopes[rows].sum())) < 1e-12
        assert abs(float((slopes * rho)[rows].sum())) < 1e-4
        corr = torch.corrcoef(torch.stack([batch.reward[rows], rho[rows]]))[0, 1]
        expected += (size - 1) * 2 * (1 - float(corr)) / 7
    assert float(loss) == pytest.approx(expected, rel=1e-4)
    best = batch.replace(logp=old + 0.7 * batch.reward[:, None])
    assert float(gradients(recipe, ready(recipe, best))[0]) < 1e-9


def test_the_first_step_of_reg_grpo_is_a_policy_gradient() -> None:
    recipe, batch = reg_grpo(kl_coef=0.0, floor=0.05), on_policy(random_batch())
    credit = ready(recipe, batch).advantage
    sums = PLAIN.replace(ratio=TrajectoryRatio(), surrogate=RatioTimesAdvantage())
    same(dlogp(recipe, batch), 2 / (0.05 + 1e-6) * dlogp(sums, batch), 1e-9)
    flat = batch.replace(reward=torch.ones(9).double())
    assert not dlogp(recipe, flat).any() and credit.any()
