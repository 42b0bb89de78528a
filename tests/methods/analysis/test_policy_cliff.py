"""The page of policy-cliff."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from policyopt.methods.analysis.policy_cliff import RewardCliff, policy_cliff, soft_policy
from tests.cases.words.policy_cliff import stability_bound
from tests.methods.shared_divergence import distributions


def test_the_soft_policy_moves_no_further_than_its_bound_and_gives_away_no_more() -> None:
    for seed, alpha in itertools.product(range(10), (0.05, 0.5, 20.0)):
        q, change = distributions(5, seed=seed), 0.1 * distributions(5, seed=seed + 50)
        moved = (soft_policy(q + change, alpha) - soft_policy(q, alpha)).abs().sum()
        assert float(moved) <= float(stability_bound(change, alpha))
        lost = q.max() - (soft_policy(q, alpha) * q).sum()
        assert 0 <= float(lost) <= alpha * math.log(5)
    tied, nudge = torch.tensor([1.0, 1.0], dtype=torch.float64), torch.tensor([0.0, 1e-3], dtype=torch.float64)
    jumps = [float((soft_policy(tied + nudge, a) - soft_policy(tied, a)).abs().sum()) for a in (1e-5, 1.0, 1e5)]
    assert jumps[0] == pytest.approx(1)
    assert jumps[0] > jumps[1] > jumps[2]
    torch.testing.assert_close(soft_policy(tied * 0 + nudge, 1e9), tied / 2)


def test_credit_divided_by_its_spread_jumps_and_centred_credit_does_not() -> None:
    reward = torch.tensor([[1.0, 1.0, 1.0, 1.0], [0.0, 1.0, 0.0, 0.0]])
    found = RewardCliff(epsilon=1e-4, alpha=0.1).samples(reward, torch.zeros_like(reward))
    assert found["cliff/ties"] == 0.5
    assert found["cliff/advantage"] > 0.3
    assert found["cliff/centred"] < 1e-4
    assert found["cliff/policy"] < 1e-4 / 0.1
    assert policy_cliff(epsilon=0.5) == (RewardCliff(epsilon=0.5),)
