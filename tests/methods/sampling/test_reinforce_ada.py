"""The page of reinforce-ada."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from policyopt.methods.aggregation.dr_grpo import dr_grpo
from policyopt.methods.group.grpo import grpo
from policyopt.methods.sampling.reinforce_ada import UntilMixed, reinforce_ada
from policyopt.objective import shaped
from policyopt.parts import TokenMean
from policyopt.rows import make_batch
from policyopt.training.rows import with_baseline
from tests.batches import random_batch
from tests.methods.shared_credit import Script, same


def test_reinforce_ada_in_one_round_of_n_is_dr_grpo() -> None:
    rollout = UntilMixed(size=4, round_size=4, max_rounds=1)
    drawn = Script(0, 1, 0, 0).draw(rollout)
    assert sorted(r.tokens[0] for r in drawn) == [0, 1, 2, 3]
    assert {r.use for r in drawn} == {"train"}
    batch = with_baseline(random_batch(), ["train"] * 9).replace(reward=random_batch().correct)
    batch = with_baseline(batch, ["train"] * 9)
    same(reinforce_ada(high=0.2), dr_grpo().replace(aggregate=TokenMean()), batch)


def test_reinforce_ada_takes_the_baseline_from_all_that_was_drawn() -> None:
    outcomes = [0.0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 1, 0]
    script = Script(*outcomes)
    drawn = script.draw(UntilMixed(size=4, round_size=8, max_rounds=4))
    assert [(r.tokens[0], r.use) for r in drawn[:4]] == [(6, "train"), (13, "train"), (0, "train"), (1, "train")]
    assert {r.use for r in drawn[4:]} == {"pool"}
    assert (script.calls, len(drawn)) == (2, 16)
    recipe = reinforce_ada()
    scores = torch.tensor([outcomes[r.tokens[0]] for r in drawn], dtype=torch.float64)
    mask = torch.ones(16, 1, dtype=torch.float64)
    batch = shaped(recipe, make_batch(mask=mask, reward=scores * 0.8, group=torch.zeros(16, dtype=torch.long)))
    batch = with_baseline(batch, [r.use for r in drawn])[:4]
    torch.testing.assert_close(recipe.advantage(batch)[:, 0].tolist(), [13 / 16, 13 / 16, -3 / 16, -3 / 16])


@pytest.mark.parametrize("stop", ["balanced", "positive"])
def test_reinforce_ada_stops_as_soon_as_it_may_and_never_later_than_it_must(stop: Any) -> None:
    part = UntilMixed(size=5, round_size=5, max_rounds=3, exit=stop)
    g = torch.Generator().manual_seed(1)
    for p in (0.0, 0.1, 0.5, 0.9, 1.0):
        script = Script(*(torch.rand(15, generator=g) < p).double().tolist())
        drawn = script.draw(part)
        right = [script.outcomes[i] > 0.7 for i in range(script.drawn)]
        enough = [
            sum(right[:m]) >= 1 if stop == "positive" else sum(right[:m]) >= 2 and m - sum(right[:m]) >= 3
            for m in (5, 10, 15)
        ]
        assert script.calls == (enough.index(True) + 1 if any(enough) else 3)
        trained = [r.tokens[0] for r in drawn if r.use == "train"]
        assert len(set(trained)) == 5
        good = sum(right[i] for i in trained)
        assert good == max(min(2, sum(right)), 5 - right.count(False))


@pytest.mark.parametrize("stop", ["balanced", "positive"])
def test_rounds_may_be_smaller_than_what_is_kept(stop: Any) -> None:
    part = UntilMixed(size=4, round_size=2, max_rounds=4, exit=stop)
    script = Script(1, 1, 1, 0, 0, 0, 0, 0)
    drawn = script.draw(part)
    assert script.calls == (2 if stop == "positive" else 3), "four of them at least; two of each"
    assert sum(r.use == "train" for r in drawn) == 4
    assert [r.tokens[0] for r in drawn if r.use == "train"] == ([0, 1, 2, 3] if stop == "positive" else [0, 1, 3, 4])
    with pytest.raises(ValueError, match="round_size is 1 and max_rounds 3: 3 responses at most"):
        UntilMixed(size=4, round_size=1, max_rounds=3)


def test_a_pool_needs_a_rollout_that_has_one() -> None:
    with pytest.raises(ValueError, match="baseline_reward"):
        grpo().replace(advantage=reinforce_ada().advantage)
