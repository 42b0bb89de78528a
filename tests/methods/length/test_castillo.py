"""The page of CASTILLO."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from policyopt.errors import UserError
from policyopt.methods.length.castillo import castillo, spread
from policyopt.rows import make_batch
from policyopt.training.metrics import batch_metrics


def test_a_runaway_moves_the_mean_and_not_the_median() -> None:
    calm, wild = castillo([[10, 11, 12, 13, 14], [10, 11, 12, 13, 1400]], cap=1400)
    assert calm.percentiles[50] == wild.percentiles[50] == 12 and wild.mean > 20 * calm.mean
    assert (calm.at_cap, wild.at_cap, wild.longest, wild.shortest) == (0, 1, 4, 0)
    ten = spread(range(1, 11))
    assert 9 < ten.percentiles[99] < 10


def test_order_changes_nothing_and_scale_scales() -> None:
    lengths = [5, 80, 7, 31]
    one, other = spread(lengths), spread(lengths[::-1])
    assert dataclasses.replace(one, shortest=0, longest=0) == dataclasses.replace(other, shortest=0, longest=0)
    ten = spread([10 * n for n in lengths])
    assert (ten.mean, ten.std, ten.cv) == pytest.approx((10 * one.mean, 10 * one.std, one.cv))
    assert spread([4, 4, 4]).cv == spread([4]).std == spread([0, 0]).cv == 0
    with pytest.raises(UserError, match="prompt 1 has no response"):
        castillo([[1], []])


def test_the_log_says_the_same_of_each_prompt() -> None:
    rows = dict.fromkeys(("reward", "correct", "formatted", "truncated"), torch.zeros(4, dtype=torch.float64))
    tokens = dict.fromkeys(("advantage", "sampled_entropy"), torch.zeros(4, 1, dtype=torch.float64))
    batch = make_batch(
        mask=torch.ones(4, 1, dtype=torch.float64),
        group=torch.tensor([0, 0, 0, 1]),
        true_length=torch.tensor([2.0, 4, 6, 5], dtype=torch.float64),
        **rows,
        **tokens,
    )
    found = batch_metrics(batch)
    assert found["length/cv"] == pytest.approx((spread([2, 4, 6]).cv + 0) / 2)
    assert found["length/p99"] == pytest.approx(spread([2, 4, 6, 5]).percentiles[99])
