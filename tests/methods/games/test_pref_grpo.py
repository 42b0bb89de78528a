"""The page of pref-grpo."""

from __future__ import annotations

import pytest
import torch

from policyopt.methods.games.pref_grpo import Held, pref_grpo
from policyopt.methods.group.grpo import grpo
from policyopt.parts import Normalise, WinRate
from tests.batches import dlogp, random_batch
from tests.methods.shared_surrogates import same


def test_it_is_grpo_on_win_rates() -> None:
    batch = random_batch()
    won = WinRate(votes=True)(batch)
    same(dlogp(pref_grpo(), batch), dlogp(grpo(kl_coef=0.0).set("advantage.eps", 1e-8), won))


def test_under_a_clear_order_only_ranks_count_however_small_the_differences() -> None:
    batch = random_batch(groups=(4,)).replace(beats=None, wins=None)
    small = batch.replace(reward=0.5 + 1e-4 * torch.tensor([3.0, 0.0, 2.0, 1.0], dtype=torch.float64))
    found = pref_grpo().advantage(WinRate(votes=True)(small))[:, 0]
    assert found.tolist() == pytest.approx([1.1619, -1.1619, 0.3873, -0.3873], abs=1e-4)
    assert pref_grpo().advantage(WinRate()(batch.replace(reward=batch.reward * 0)))[:, 0].abs().max() == 0


def test_the_advantage_is_held_on_both_sides() -> None:
    batch = random_batch(groups=(9,))
    one = batch.replace(reward=torch.eye(9, dtype=torch.float64)[0])
    free = Normalise(ddof=0)(one)
    assert free.max() > 2
    same(Held(inner=Normalise(ddof=0), most=2.0)(one), free.clamp(-2.0, 2.0))
