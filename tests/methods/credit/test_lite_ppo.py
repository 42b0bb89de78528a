"""The page of lite-ppo."""

from __future__ import annotations

import torch

from policyopt.methods.credit.lite_ppo import lite_ppo
from policyopt.methods.group.grpo import grpo
from tests.batches import random_batch
from tests.methods.shared_credit import EQUAL_LENGTHS, outcomes, same


def test_lite_ppo_is_grpo_on_one_prompt_of_equal_lengths() -> None:
    batch = random_batch(groups=(9,), lengths=EQUAL_LENGTHS)
    same(lite_ppo(), grpo(kl_coef=0.0), batch)


def test_lite_ppo_scales_by_the_batch_and_centres_by_the_prompt() -> None:
    batch = outcomes([1, 1, 1, 0, 0, 0, 0.9, 1.0, 0.9], [3, 3, 3])
    advantage = lite_ppo().advantage(batch)[:, 0]
    assert not advantage[:6].any()
    spread = batch.reward.std(correction=1) + 1e-6
    torch.testing.assert_close(advantage[6:], (batch.reward[6:] - batch.reward[6:].mean()) / spread)
