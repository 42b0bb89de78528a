"""The page of unlikeliness."""

from __future__ import annotations

import pytest
import torch

from policyopt.methods.group.grpo import grpo
from policyopt.methods.reward.unlikeliness import RankDiscount, unlikeliness
from policyopt.objective import kept
from policyopt.parts import MixedOutcomes, Normalise
from tests.batches import random_batch
from tests.methods.shared_credit import same


def test_unlikeliness_without_a_discount_is_grpo_on_mixed_groups() -> None:
    batch = random_batch()
    parent = grpo(kl_coef=0.1).replace(filter=(MixedOutcomes(),))
    same(unlikeliness(beta_rank=0.0), parent, batch)
    assert unlikeliness(beta_rank=0.0).update.epochs == 2


def test_the_least_likely_right_answer_is_worth_most() -> None:
    batch = random_batch(groups=(5, 4), lengths=(3, 6, 2, 5, 1, 4, 4, 2, 6)).replace(
        reward=torch.tensor([1.0, 1, 0, 1, 1, 1, 1, 1, 1], dtype=torch.float64)
    )
    part = RankDiscount(coef=0.25)
    after, mean = part(batch).reward, (batch.old_logp * batch.mask).sum(-1) / batch.mask.sum(-1)
    for rows, size in ((range(5), 5), (range(5, 9), 4)):
        order = sorted(rows, key=lambda i: float(mean[i]))
        for k, i in enumerate(order):
            assert float(after[i]) == pytest.approx(float(batch.reward[i]) * (1 - 0.25 * k / size))
    shifted = batch.replace(old_logp=batch.old_logp - 0.7 * batch.mask)
    torch.testing.assert_close(part(shifted).reward, after)
    whole = RankDiscount(coef=0.25, length_normalised=False)(batch).reward
    assert not torch.equal(whole, after)
    assert Normalise()(part(batch))[5:].any(), "a group that is all right has a signal again"
    keep = kept(unlikeliness(), batch.replace(correct=batch.reward))
    assert keep.tolist() == [True] * 5 + [False] * 4, "but the original rewards decide what is trained on"
