"""The page of MBRCSL."""

from __future__ import annotations

import math

import torch

from policyopt.methods.sampling.mbrcsl import BeatsBest, BestReward, mbrcsl
from policyopt.objective import credit, kept, token_gradients
from policyopt.rows import Batch, make_batch


def told(reward: list[float], best: list[float] | None = None, group: list[int] | None = None) -> Batch:
    n = len(reward)
    return make_batch(
        mask=torch.ones(n, 2, dtype=torch.float64),
        reward=torch.tensor(reward, dtype=torch.float64),
        group=torch.tensor(group or [0] * n),
        history=None if best is None else torch.tensor(best, dtype=torch.float64)[:, None],
        old_logp=torch.zeros(n, 2, dtype=torch.float64),
    )


def test_only_what_is_above_the_best_is_kept() -> None:
    batch = told([1.5, 1.0, 1.75, 0.5], [1.5, 1.5, 1.5, 0.25], [0, 0, 0, 1])
    assert kept(mbrcsl(), batch).tolist() == [False, False, True, True], "a tie is dropped"
    new = told([0.0, 0.5], [math.nan] * 2)
    assert BeatsBest()(new).tolist() == [False, True] and not BeatsBest(known=0.5)(new).any()


def test_what_is_kept_is_imitated_alike() -> None:
    batch = told([2.0, 1.0, 3.0], [1.5] * 3)
    recipe = mbrcsl()
    rows = credit(recipe, batch[kept(recipe, batch)])
    gradient = token_gradients(recipe, rows, {"logp": rows.old_logp})[1]["logp"]
    torch.testing.assert_close(gradient, torch.full((2, 2), -0.25, dtype=torch.float64))


def test_the_best_is_remembered_prompt_by_prompt() -> None:
    part = BestReward()
    assert part(told([1.0, 3.0, 2.0], group=[0, 0, 1]))[:, 0].tolist() == [3, 3, 2]
    assert part(told([1.0, 3.0, 2.0], [5.0, 5.0, math.nan], [0, 0, 1]))[:, 0].tolist() == [5, 5, 2]
