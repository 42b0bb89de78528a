"""The page of T1."""

from __future__ import annotations

import pytest
import torch

from policyopt.methods.baseline.rloo import rloo
from policyopt.methods.entropy.t1 import t1
from policyopt.parts import TokenMean
from policyopt.parts.regularizer.kl import KL
from tests.batches import random_batch, ready
from tests.methods.shared_credit import same


def test_without_the_bonus_it_is_rloo_with_a_kl() -> None:
    batch = random_batch()
    batch = batch.replace(truncated=0 * batch.reward)
    parent = rloo(kl_coef=0.0).replace(aggregate=TokenMean(), regularizers=(KL(coef=0.02),))
    same(t1(entropy_coef=0.0), parent, batch)


def test_what_is_cut_off_is_worth_less_than_an_honest_wrong_answer() -> None:
    batch = random_batch(groups=(3,), lengths=(4, 4, 4))
    reward = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    credit = ready(t1(), batch.replace(reward=reward, truncated=torch.tensor([0.0, 0.0, 1.0]).double())).advantage[:, 0]
    assert credit.tolist() == pytest.approx([1.5, 0, -1.5])


def test_the_reference_follows() -> None:
    assert t1(decay=0.9).reference(1) == pytest.approx(0.1)
    assert t1(decay=0.0).reference(5) == 1
    with pytest.raises(ValueError, match="less than 1"):
        t1(decay=1.0)
