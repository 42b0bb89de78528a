"""The page of open-rs."""

from __future__ import annotations

import torch

from policyopt.methods.group.grpo import grpo
from policyopt.methods.reward.open_rs import open_rs
from policyopt.objective import shaped
from policyopt.parts import Correctness
from tests.batches import random_batch
from tests.methods.shared_credit import lengths, same


def test_the_cosine_reward_of_open_rs() -> None:
    right, wrong = (shaped(open_rs(w_format=0.0, w_cosine=1.0), lengths(0, 20, 40, 80, correct=c)) for c in (1.0, 0.0))
    torch.testing.assert_close(right.reward.tolist(), [1.0, 0.75, 0.5, 1.0])
    torch.testing.assert_close(wrong.reward.tolist(), [0.0, -0.25, -0.5, 0.0])
    held = shaped(open_rs(clamp=True, w_format=0.0, w_cosine=1.0), lengths(40, 80))
    torch.testing.assert_close(held.reward.tolist(), [0.5, 0.5])
    torch.testing.assert_close(shaped(open_rs(), lengths(40)).reward.tolist(), [1 + 2 * 0.5])
    torch.testing.assert_close(shaped(open_rs(max_len=80), lengths(40)).reward.tolist(), [1 + 2 * 0.75])


def test_without_weights_open_rs_is_grpo_on_the_form() -> None:
    batch = random_batch()
    parent = grpo().replace(shape=(Correctness(right=0.0, wrong=0.0, formatted=1.0),))
    same(open_rs(w_cosine=0.0), parent, batch)
