"""The page of hapo-heterogeneous."""

from __future__ import annotations

import pytest
import torch

from policyopt.methods.clip.hapo_heterogeneous import EntropyBounds, TokenNormalise, entropy_scale
from policyopt.parts import Normalise
from tests.batches import random_batch
from tests.methods.shared_ratios import same


def test_the_position_of_an_entropy_does_not_depend_on_its_power() -> None:
    batch = random_batch(gaps=True)
    h = entropy_scale(batch.entropy, batch.mask, 0.8)
    same(entropy_scale(batch.entropy**3, batch.mask, 0.8), h)
    mine = h[batch.mask.bool()]
    assert float(mine.max()) == 1
    assert float(mine.min()) == -1
    ranked = batch.entropy[batch.mask.bool()].sort().values
    pivot = float(ranked[round(0.8 * (len(ranked) - 1))])
    assert ((mine > 0) == (batch.entropy[batch.mask.bool()] > pivot)).all()
    alike = torch.ones_like(batch.entropy)
    assert not entropy_scale(alike, batch.mask, 0.5).any()


def test_only_one_bound_of_a_token_moves_with_its_entropy() -> None:
    batch = random_batch()
    low, high = EntropyBounds()(0.2, 0.3, batch.logp, batch)
    assert (((low == 0.8) | (high == 1.3))[batch.mask.bool()]).all()
    assert float(low.min()) == pytest.approx(0.6)
    assert float(high.max()) == pytest.approx(1.6)


def test_advantages_over_tokens_add_up_to_zero() -> None:
    batch = random_batch(groups=(4, 3), lengths=(1, 6, 3, 2, 5, 5, 1))
    advantage = TokenNormalise(fallback=None)(batch)
    for g in range(2):
        mine = advantage[batch.group == g]
        assert float(mine.sum()) == pytest.approx(0, abs=1e-9)
        inside = mine[batch.mask[batch.group == g].bool()]
        assert float(inside.std(unbiased=False)) == pytest.approx(1, abs=1e-5)
    one_long = random_batch(groups=(3, 3), lengths=(6, 6, 1, 4, 4, 4)).replace(
        reward=torch.tensor([0.0, 0.0, 1.0, 0.0, 1.0, 0.0], dtype=torch.float64)
    )
    large = TokenNormalise(fallback=None)(one_long).abs().amax(-1)
    limit = float(large[2]) - 1e-6
    fallen = TokenNormalise(fallback=limit)(one_long)
    same(fallen[:3], Normalise()(one_long)[:3])
    same(fallen[3:], TokenNormalise(fallback=None)(one_long)[3:])
