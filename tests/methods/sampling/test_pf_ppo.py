"""The page of pf-ppo."""

from __future__ import annotations

import pytest
import torch

from policyopt.methods.critic.ppo import ppo
from policyopt.methods.sampling.pf_ppo import RankWeight, pf_ppo
from tests.batches import random_batch
from tests.cases.words.pf_ppo import weighted_r2
from tests.methods.shared_credit import outcomes, same


def test_pf_ppo_with_one_response_or_even_weights_is_ppo() -> None:
    alone = random_batch(groups=(1,) * 9)
    for ranks in ("best", "best-random", "best-worst"):
        same(pf_ppo(ranks=ranks), ppo(), alone)
    pairs = random_batch(groups=(2, 2, 2))
    for ranks in ("best-random", "best-worst"):  # of two, both halves of the weight go to one row each
        same(pf_ppo(ranks=ranks), ppo(), pairs)


def test_rank_weights_add_up_and_look_at_order_alone() -> None:
    batch = random_batch(groups=(5, 3, 1))
    wanted = {"best": [1, 0, 0, 0, 0], "best-random": [0.5] + [0.125] * 4, "best-worst": [0.5, 0, 0, 0, 0.5]}
    for ranks, shares in wanted.items():
        part = RankWeight(ranks=ranks)  # type: ignore[arg-type]
        order = batch.reward[:5].argsort(descending=True)
        torch.testing.assert_close(part.share(batch)[:5][order].tolist(), [float(x) for x in shares])
        assert [float(part.share(batch)[rows].sum()) for rows in (slice(0, 5), slice(5, 8), slice(8, 9))] == [1.0] * 3
        torch.testing.assert_close(part.share(batch.replace(reward=batch.reward.exp() * 7 - 3)), part.share(batch))
        assert part(batch.mask, batch)[:5].mean() == pytest.approx(1.0)
    assert RankWeight(ranks="best").share(outcomes([1, 1, 0])).tolist() == [1, 0, 0], "of equals the first"


def test_weighted_r2_is_the_squared_weighted_correlation() -> None:
    g = torch.Generator().manual_seed(0)
    reward, noise, weight = (torch.randn(40, generator=g, dtype=torch.float64) for _ in range(3))
    actual, weight = reward + noise, weight.abs()
    cov = torch.cov(torch.stack([reward, actual]), aweights=weight)
    assert float(weighted_r2(reward, actual, weight)) == pytest.approx(float(cov[0, 1] ** 2 / (cov[0, 0] * cov[1, 1])))
    assert float(weighted_r2(reward, 3 - 2 * reward, weight)) == pytest.approx(1.0)
    assert float(weighted_r2(reward, torch.ones(40, dtype=torch.float64), weight)) == 0.0
    middle = actual.clone()  # a reward that tells nothing in the middle: the extremes say more
    inside = reward.abs() < 1
    middle[inside] = noise[inside] * 2
    extremes = (reward.abs() > 1).double()
    assert weighted_r2(reward, middle, extremes) > weighted_r2(reward, middle, torch.ones_like(reward))
