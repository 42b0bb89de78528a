"""RRHF for code: candidates in order, and the best one imitated."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from policyopt.methods.contrast.rrhf_code import rrhf_code
from policyopt.rows import Batch, make_batch
from tests.methods.preference.pairs import worked

LENGTHS = (3, 2, 4, 1, 3)
MASK = (torch.arange(4) < torch.tensor(LENGTHS)[:, None]).double()


def batch(score: list[float], reward: list[float]) -> Batch:
    """Three candidates of one prompt and two of another, of such mean log-probabilities and rewards."""
    logp = torch.tensor(score, dtype=torch.float64)[:, None] * MASK
    return make_batch(
        mask=MASK, logp=logp, old_logp=logp, group=torch.tensor([0, 0, 0, 1, 1]),
        reward=torch.tensor(reward, dtype=torch.float64),
    )  # fmt: skip


def same(x: Any, y: Any) -> None:
    torch.testing.assert_close(torch.as_tensor(x), torch.as_tensor(y), rtol=1e-12, atol=1e-12)


def test_candidates_in_order_leave_imitation_alone() -> None:
    ordered = batch([-2.0, -3.0, -1.0, -2.0, -1.0], [1.0, 0.0, 2.0, 0.0, 1.3])
    loss, gradient = worked(rrhf_code(), ordered)
    same(gradient, torch.tensor([0, 0, -0.5, 0, -0.5], dtype=torch.float64)[:, None] * MASK)
    assert loss == pytest.approx((4 * 1 + 3 * 1) / 2)


def test_a_pair_out_of_order_pulls_by_one_over_the_length() -> None:
    wrong = batch([-2.0, -1.0, -0.5, -1.0, -1.0], [1.0, 0.0, 2.0, 0.0, 0.0])
    gradient = worked(rrhf_code(ft_weight=0.0), wrong)[1]
    same(
        gradient, torch.tensor([-1 / 3, 1 / 2, 0, 0, 0], dtype=torch.float64)[:, None] / 2 * MASK
    )  # two prompts, one of equal rewards


def test_only_the_order_of_rewards_counts() -> None:
    rewards = [1.0, 0.0, 2.0, 0.0, 1.3]
    score = [-0.7, -0.5, -1.2, -1.6, -1.9]
    one, other = (worked(rrhf_code(), batch(score, r)) for r in (rewards, [x**3 * 5 - 2 for x in rewards]))
    assert one[0] == pytest.approx(other[0])
    same(one[1], other[1])


def test_equal_candidates_are_imitated_by_the_first() -> None:
    gradient = worked(rrhf_code(), batch([-0.7, -0.5, -1.2, -1.6, -1.9], [1.0] * 5))[1]
    same(gradient, torch.tensor([-0.5, 0, 0, -0.5, 0], dtype=torch.float64)[:, None] * MASK)


def test_imitation_is_of_the_sum_or_of_the_mean_of_tokens() -> None:
    given = batch([-0.7, -0.5, -1.2, -1.6, -1.9], [0.0, 0.0, 1.0, 0.0, 1.0])
    summed, mean = (worked(rrhf_code(rank_weight=0.0, tuning=t), given)[1] for t in ("sum", "mean"))
    same(summed, torch.tensor([0, 0, -0.5, 0, -0.5], dtype=torch.float64)[:, None] * MASK)
    same(mean, torch.tensor([0, 0, -0.5 / 4, 0, -0.5 / 3], dtype=torch.float64)[:, None] * MASK)
