"""The page of maxrl."""

from __future__ import annotations

import pytest
import torch

from policyopt.methods.credit.maxrl import maxrl
from policyopt.parts import Normalise
from tests.batches import random_batch
from tests.methods.shared_credit import expected_gradient, outcomes

# MaxRL, Lite PPO, REINFORCE++ ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [0.1, 0.45, 0.9])
def test_maxrl_has_the_gradient_of_the_truncated_log_likelihood(p: float) -> None:
    advantage = maxrl(eps=0.0).advantage
    got = expected_gradient(lambda batch: advantage(batch)[:, 0] / 5, p, 5)
    assert got == pytest.approx((1 - (1 - p) ** 4) / p, rel=1e-12)


def test_maxrl_divides_by_the_mean_of_the_group() -> None:
    advantage = maxrl(eps=0.0).advantage
    hard, easy = advantage(outcomes([1, 0, 0, 0]))[:, 0], advantage(outcomes([1, 1, 1, 0]))[:, 0]
    torch.testing.assert_close(hard.tolist(), [3.0, -1.0, -1.0, -1.0])
    torch.testing.assert_close(easy.tolist(), [1 / 3] * 3 + [-1.0])
    torch.testing.assert_close(advantage(outcomes([7, 0, 0, 0]))[:, 0], hard)
    assert not advantage(outcomes([0, 0, 0, 5.0], [3, 1])).any(), "no success, and a group of one"
    batch = random_batch()
    batch = batch.replace(reward=batch.correct)
    spread = Normalise(eps=0.0)(batch)
    ratio = (advantage(batch) / spread)[spread != 0].reshape(-1)
    assert (ratio > 0).all(), "GRPO's signs, another size"
