"""The page of rapo."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from policyopt.methods.entropy.rapo import ForwardKL, RewardTempered
from policyopt.parts.statistic.tempered import tempered_logp
from policyopt.rows import FIXED, make_batch
from tests.methods.shared_entropy import SEEDS, logits, over_vocabulary

# RAPO ----------------------------------------------------------------------------------------------------------------


@SEEDS
def test_the_reference_is_flattened_by_the_reward(seed: int) -> None:
    z, reference = logits(seed), logits(seed + 10)
    for floor, reward, power in ((0.4, 0.0, 0.4), (0.4, 0.5, 0.7), (0.4, 3.0, 1.0), (0.0, -2.0, 0.0), (1.0, 0.0, 1.0)):
        others = {"reference": reference, "reward": torch.full((7,), reward, dtype=torch.float64)}
        found = over_vocabulary(RewardTempered(floor), z, others)
        torch.testing.assert_close(found, (power * reference.log_softmax(-1)).log_softmax(-1))
    torch.testing.assert_close(
        tempered_logp(z, torch.zeros(7, dtype=torch.long), 0.0), torch.full((7,), -math.log(5)).double()
    )


@SEEDS
def test_the_forward_kl_is_unbiased_and_lets_go_of_what_the_reference_rules_out(seed: int) -> None:
    part = ForwardKL(coef=1.0)
    policy, reference = (logits(seed + k, m=6).log_softmax(-1) for k in (0, 10))
    total = torch.zeros(6, dtype=torch.float64)
    for v in range(5):  # one row of six positions, all of which drew token v
        batch = make_batch(mask=torch.ones(1, 6), logp=policy[None, :, v])
        batch = batch.with_statistics({FIXED + part.target.key: reference[None, :, v]})
        found = part.estimate(batch)[0]
        assert (found >= 0).all()
        total += policy[:, v].exp() * found
    torch.testing.assert_close(total, (reference.exp() * (reference - policy)).sum(-1))

    logp = torch.tensor([[-1.0, -1.0, -9.0]], dtype=torch.float64, requires_grad=True)
    batch = make_batch(mask=torch.ones(1, 3), logp=logp)
    batch = batch.with_statistics({FIXED + part.target.key: torch.tensor([[-1.0, -60.0, -1.0]], dtype=torch.float64)})
    gradient = torch.autograd.grad(part.estimate(batch).sum(), logp, retain_graph=True)[0][0]
    assert gradient[0] == 0
    assert abs(gradient[1]) < 1e-20
    assert gradient[2] == pytest.approx(-8 * math.exp(8))
    assert torch.autograd.grad(replace(part, limit=100.0).estimate(batch).sum(), logp)[0][0, 2] == 0
