"""The page of s-grpo."""

from __future__ import annotations

import torch

from policyopt.methods.exit.s_grpo import s_grpo
from policyopt.methods.group.grpo import grpo
from policyopt.objective import shaped
from tests.batches import dlogp, random_batch
from tests.methods.shared_judges import same


def test_earlier_right_answers_earn_more_and_wrong_ones_do_not_count() -> None:
    batch = random_batch(groups=(4,)).replace(
        correct=torch.tensor([1.0, 0.0, 1.0, 1.0]).double(), origin=torch.tensor([0, 1, 3, 2])
    )
    assert shaped(s_grpo(), batch).reward.tolist() == [0.25, 0.0, 0.5, 1.0]
    serial = s_grpo().replace(source=grpo().source)
    one = batch.replace(correct=torch.tensor([0.0, 0.0, 1.0, 0.0]).double())
    same(dlogp(serial, one), dlogp(grpo(kl_coef=0.0), one.replace(reward=one.correct)))
