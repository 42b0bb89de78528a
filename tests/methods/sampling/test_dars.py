"""The page of dars."""

from __future__ import annotations

import math

import pytest
import torch

from policyopt.methods.aggregation.dr_grpo import dr_grpo
from policyopt.methods.sampling.dars import MoreForHard, dars
from policyopt.objective import kept
from tests.batches import dlogp, random_batch
from tests.methods.shared_credit import Script, same


@pytest.mark.parametrize("scaled", [False, True])
def test_hard_prompts_reach_the_peak_of_advantage(scaled: bool) -> None:
    def advantage(a: float) -> float:
        return 2 * math.sqrt(a * (1 - a)) if scaled else 2 * a * (1 - a)

    equal, hard = (MoreForHard(size=8, most=10_000, target=t, scaled=scaled) for t in ("equal", "hardness"))  # type: ignore[arg-type]
    for right in range(4):
        a = right / 8 or 1 / 16
        for part, factor in ((equal, 1.0), (hard, 2 * (1 - a))):
            extra = part.extra(right / 8)
            target = factor * 8 * advantage(0.5)
            assert (8 + extra) * advantage(a) >= target - 1e-9
            assert (8 + extra - 1) * advantage(a) < target
        assert hard.extra(right / 8) >= equal.extra(right / 8) >= 1
    assert [part.extra(a) for part in (equal, hard) for a in (0.5, 0.625, 1.0)] == [0] * 6
    assert MoreForHard(size=8, most=11).extra(0.0) == 3


def test_dars_draws_more_for_hard_prompts_alone() -> None:
    rollout = dars(group_size=4, most=9).source
    easy, hard = Script(1, 0, 1, 0), Script(*[0.0] * 9)
    assert [r.tokens[0] for r in easy.draw(rollout)] == [0, 1, 2, 3]
    assert [r.tokens[0] for r in hard.draw(rollout)] == [4, 5, 6, 7, 8, 0, 1, 2, 3]
    assert (easy.calls, hard.calls) == (1, 2)


def test_dars_without_room_is_its_parent_with_a_filter() -> None:
    batch = random_batch(groups=(6, 2, 1)).replace(correct=torch.tensor([0.0, 1, 0, 0, 0, 0, 1, 0, 1]))
    recipe = dars(most=8)
    same(recipe, dr_grpo(), batch)
    assert kept(recipe, batch).tolist() == [True] * 8 + [False]
    assert kept(dars(upper_threshold=0.5), batch).tolist() == [True] * 6 + [False] * 3
    assert Script(*[0.0] * 8).draw(recipe.source)[-1].tokens == [7]
    drawn = dlogp(dr_grpo(), batch)
    assert drawn.any()
