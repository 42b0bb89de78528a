"""The page of D3S."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from torch import Tensor

from policyopt.methods.group.grpo import grpo
from policyopt.methods.sampling.d3s import LargestCredit, MostVaried, d3s
from policyopt.objective import selected
from policyopt.parts import TokenMean
from policyopt.rows import Batch, make_batch
from policyopt.steering import States, control
from tests.batches import gradients, random_batch, ready
from tests.methods.shared_credit import same


def credited(values: list[float]) -> Batch:
    x = torch.tensor(values, dtype=torch.float64)[:, None]
    noise = torch.rand(x.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return make_batch(mask=torch.ones_like(x), advantage=x, noise=noise)


def variance(batch: Batch, rows: Tensor | list[int]) -> float:
    return float(batch.advantage[rows, 0].var(correction=0))


@pytest.mark.parametrize("seed", range(4))
def test_the_scan_finds_what_trying_all_finds(seed: int) -> None:
    values = torch.randn(7, generator=torch.Generator().manual_seed(seed)).tolist()
    batch = credited(values)
    for n in range(1, 8):
        kept = MostVaried(keep=n)(batch)
        assert int(kept.sum()) == n
        best = max(variance(batch, list(rows)) for rows in combinations(range(7), n))
        assert variance(batch, kept) == pytest.approx(best, abs=1e-12)
        if n >= 2:
            assert kept[batch.advantage[:, 0].argmax()]
            assert kept[batch.advantage[:, 0].argmin()]
        order = torch.randperm(7, generator=torch.Generator().manual_seed(seed))
        assert torch.equal(MostVaried(keep=n)(batch[order]), kept[order])


def test_equal_rows_are_taken_by_lot_and_nothing_around_zero() -> None:
    batch = credited([0.0] * 5 + [1.0, -1.0])
    kept = MostVaried(keep=3)(batch)
    assert kept[[5, 6]].all()
    order = torch.tensor([6, 3, 0, 5, 1, 4, 2])
    assert torch.equal(MostVaried(keep=3)(batch[order]), kept[order])
    assert int(MostVaried(keep=2.5)(batch).sum()) == 3
    assert MostVaried(keep=9)(batch).all()


def test_tokens_count_by_credit_times_entropy() -> None:
    batch = random_batch()
    batch = batch.replace(advantage=torch.ones_like(batch.mask), sampled_entropy=batch.mask * 0)
    places = batch.mask.nonzero()[:3].T
    entropy = batch.sampled_entropy.clone()
    entropy[places[0], places[1]] = 1.0
    batch = batch.replace(sampled_entropy=entropy)
    few = LargestCredit(share=2.5 / float(batch.mask.sum()))(batch)
    assert int(few.sum()) == 3, "rounded up"
    assert few[places[0], places[1]].all(), "no token of entropy 0 while others remain"


def test_all_of_it_is_the_parent_and_a_part_has_a_divisor_of_its_own() -> None:
    whole = d3s(n_init=100, n_final=100, k_init=1.0, k_final=1.0)
    same(whole, grpo(kl_coef=0.0).replace(aggregate=TokenMean()), random_batch())
    half = whole.set("weight.MeanOver.tokens.share", 0.5)
    batch = ready(half, random_batch(drift=0.0))
    got, parent = (gradients(r, batch)[1]["logp"] for r in (half, whole))
    there = got != 0
    kept = half.get("weight.MeanOver.tokens")(batch)
    assert not (there & ~kept).any()
    torch.testing.assert_close(got[there], parent[there] * float(batch.mask.sum() / kept.sum()))


def test_both_shares_are_relaxed() -> None:
    recipe, states = d3s(n_init=2, n_final=6, k_init=0.1, k_final=0.5, relax_steps=4), States()
    for _ in range(3):
        recipe = control(recipe, {}, states)
    assert recipe.get("select.MostVaried.keep") == 4
    assert recipe.get("weight.MeanOver.tokens.share") == pytest.approx(0.3)
    assert int(selected(recipe, ready(recipe, random_batch())).sum()) == 4
