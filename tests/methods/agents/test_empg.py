"""The page of EMPG."""

from __future__ import annotations

import math

import pytest
import torch

from policyopt.methods.agents.empg import EntropyModulated
from policyopt.parts import Normalise
from policyopt.rows import Batch
from tests.batches import random_batch


def raw(entropy: list[list[float]], **fields: float) -> tuple[torch.Tensor, torch.Tensor]:
    part, x = EntropyModulated(**fields), torch.tensor(entropy, dtype=torch.float64)  # type: ignore[arg-type]
    return part.scale(x, x >= 0), part.modulated(torch.tensor([1.0, -1.0], dtype=torch.float64), x, x >= 0)


def test_the_mean_factor_is_1_and_the_surest_turn_has_e_to_the_kappa_times_the_least_sure() -> None:
    scale, modulated = raw([[0.1, 0.9], [0.4, 0.5]], kappa=2.0, zeta=0.0)
    assert scale.mean() == pytest.approx(1, abs=1e-6)
    assert scale.max() / scale.min() == pytest.approx(math.exp(2), rel=1e-6)
    assert scale.argmax() == 0
    assert (modulated[0] > 0).all() and (modulated[1] < 0).all(), "sure mistakes are punished more, not less"
    moved = raw([[10.1, 10.9], [10.4, 10.5]], kappa=2.0, zeta=0.0)[0]
    assert torch.allclose(scale, moved, rtol=1e-6), "where entropies lie does not matter"


def test_a_turn_before_a_sure_one_has_the_bonus_and_the_last_has_none() -> None:
    plain, paid = raw([[0.9, 0.1], [0.5, -1.0]], zeta=0.0)[1], raw([[0.9, 0.1], [0.5, -1.0]], zeta=0.1)[1]
    assert (paid - plain)[0].tolist() == pytest.approx([0.1, 0])
    assert (paid - plain)[1].tolist() == [0, 0], "no turn, no bonus"


def test_with_nothing_to_modulate_it_is_the_parents_less_its_mean_over_turns() -> None:
    batch: Batch = random_batch(lengths=(3, 4, 6, 2, 5, 6, 2, 3, 2))
    plain = Normalise()(batch)
    there = batch.turn_end >= 0
    mean = (plain[:, 0, None] * there).sum() / there.sum()
    found = EntropyModulated(kappa=0.0, future=0.0, zeta=0.0)(batch)
    inside = torch.arange(batch.mask.shape[1]) <= batch.turn_end.amax(1, keepdim=True)
    assert torch.allclose(found, (plain - mean) * batch.mask * inside)
    same = batch.replace(sampled_entropy=torch.ones_like(batch.mask))
    assert torch.allclose(EntropyModulated(zeta=0.0)(same), found, atol=1e-6)
