"""The page of opo."""

from __future__ import annotations

import torch

from policyopt.methods.baseline.opo import opo
from policyopt.methods.baseline.reinforce import reinforce
from tests.batches import dlogp, random_batch, ready
from tests.methods.shared_limits import alike


def test_the_baseline_counts_a_response_once_for_each_of_its_tokens() -> None:
    batch = random_batch(groups=(4, 3, 2))
    advantage, length, reward = ready(opo(), batch).advantage[:, 0], batch.mask.sum(-1), batch.total_reward()
    for g in range(3):
        rows = [i for i in range(9) if batch.group[i] == g]
        baseline = sum(float(length[i] * reward[i]) for i in rows) / sum(float(length[i]) for i in rows)
        alike(advantage[rows], reward[rows] - baseline)
        assert abs(sum(float(length[i] * advantage[i]) for i in rows)) < 1e-12
    assert ready(opo(), batch).advantage[:4, 0].sum().abs() > 1e-3, "GRPO's sum is 0 without lengths"


def test_equal_lengths_make_it_the_mean_of_the_group_and_tokens_weigh_alike() -> None:
    batch = random_batch(lengths=(4,) * 9)
    alike(ready(opo(), batch).advantage, ready(reinforce(baseline="group-mean", group_size=4), batch).advantage)
    batch = random_batch()
    alike(dlogp(opo(), batch), -ready(opo(), batch).advantage / batch.mask.sum())


def test_equal_rewards_and_a_row_alone_teach_nothing() -> None:
    batch = random_batch(groups=(4, 1)).replace(token_reward=None)
    batch = batch.replace(reward=torch.full_like(batch.reward, 0.3))
    assert not ready(opo(), batch).advantage.any()
