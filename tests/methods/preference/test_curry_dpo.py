"""The page of curry-dpo."""

from __future__ import annotations

import pytest
import torch

from policyopt.methods.preference.curry_dpo import RoundOfPairs, curry_dpo
from policyopt.methods.preference.dpo import dpo
from policyopt.objective import credit, kept, objective
from policyopt.parts import BestWorst
from policyopt.rows import Batch, make_batch

SCORES = [[3.0, 5.0, 1.0, 4.0], [2.0, 2.0, 0.0, 1.0], [1.0, 1.0, 1.0, 1.0]]


def rated(scores: list[list[float]] = SCORES) -> Batch:
    reward = torch.tensor([x for row in scores for x in row]).double()
    group = torch.tensor([i for i, row in enumerate(scores) for _ in row])
    chance = torch.Generator().manual_seed(0)
    logp, ref = (-torch.rand(len(reward), 3, generator=chance).double() for _ in range(2))
    return make_batch(
        mask=torch.ones(len(reward), 3).double(), reward=reward, group=group, logp=logp, old_logp=logp, ref_logp=ref
    )


def test_rounds_use_every_pair_with_the_best_once_from_wide_gaps_to_narrow_ones() -> None:
    batch, seen, last = rated(), [], {}
    for number in range(1, 5):
        better, worse = RoundOfPairs(number=number).pairs(batch)
        groups = batch.group[better].tolist()
        assert torch.equal(batch.group[better], batch.group[worse]) and len(set(groups)) == len(groups)
        for w, r in zip(better.tolist(), worse.tolist(), strict=True):
            gap = float(batch.reward[w] - batch.reward[r])
            assert 0 < gap < last.get(int(batch.group[w]), 99)
            last[int(batch.group[w])] = gap
            seen.append((w, r))
    # A response that ties with the best is no opponent; a prompt without a difference has no pair.
    assert sorted(seen) == [(1, 0), (1, 2), (1, 3), (4, 6), (4, 7)]


def test_the_first_round_is_dpo_on_best_and_worst() -> None:
    recipe, batch = curry_dpo(beta=0.3), rated()
    mine = credit(recipe, batch[kept(recipe, batch)])
    plain = dpo(0.3).set("surrogate.choose", BestWorst())
    torch.testing.assert_close(objective(recipe, mine), objective(plain, credit(plain, batch)))


def test_each_round_begins_at_log_two_with_the_next_pairs() -> None:
    recipe = curry_dpo(rounds=3, every=4)
    [harder] = recipe.controllers
    rounds = [harder.value(step) for step in range(14)]  # type: ignore[attr-defined]
    assert rounds == [1] * 4 + [2] * 4 + [3] * 6
    resets = [step for step in range(1, 13) if recipe.reference(step)]
    assert resets == [4, 8, 12], "after the last step of each round"
    batch = rated()
    fresh = batch.replace(ref_logp=batch.logp)
    second = recipe.set("filter.RoundOfPairs.number", 2)
    loss = objective(second, credit(second, fresh[kept(second, fresh)]))
    assert float(loss) == pytest.approx(torch.tensor(2.0).log().item(), abs=1e-7)
    assert curry_dpo(rounds=1).controllers == ()
