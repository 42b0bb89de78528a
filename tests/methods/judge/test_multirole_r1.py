"""The page of multirole-r1."""

from __future__ import annotations

import torch

from policyopt.methods.judge.multirole_r1 import multirole_r1
from tests.batches import random_batch, ready
from tests.methods.shared_judges import with_components


def test_diversity_ranks_a_group_whose_answers_are_all_right() -> None:
    batch = random_batch(groups=(3,))
    batch = with_components(batch.replace(reward=torch.ones(3).double()), accuracy=[1.0] * 3, diversity=[0.2, 0.9, 0.5])
    advantage = ready(multirole_r1(group_size=2), batch).advantage[:, 0]
    assert advantage.argsort().tolist() == [0, 2, 1]
    assert advantage.abs().max() > 0.5, "the deviation is divided by"
    assert not ready(multirole_r1(delta=1.0, group_size=2), batch).advantage.any()
