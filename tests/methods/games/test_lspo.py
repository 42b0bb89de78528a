"""The page of lspo."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import torch
from torch import Tensor

from policyopt.methods.games.lspo import (
    LatentRegret,
    LatentStrategies,
    clusters,
    lspo,
    payoffs,
    regret_matching,
    solved,
)
from policyopt.objective import credit, shaped
from policyopt.rows import Batch, make_batch
from policyopt.sources.program import Context, Question, Response

CYCLE = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]]).double()


def rows(reward: list[float], thought: list[int], group: list[int] | None = None, beats: Tensor | None = None) -> Batch:
    n = len(reward)
    return make_batch(
        mask=torch.ones(n, 1).double(), reward=torch.tensor(reward).double(), thought=torch.tensor(thought),
        group=torch.tensor(group or [0] * n), **({} if beats is None else {"beats": beats}),
    )  # fmt: skip


def test_regrets_become_a_distribution_that_their_scale_does_not_change() -> None:
    regret = torch.randn(9, 4, generator=torch.Generator().manual_seed(0)).double()
    strategy = regret_matching(regret)
    torch.testing.assert_close(strategy.sum(-1), torch.ones(9).double())
    assert (strategy >= 0).all() and (strategy[regret < 0][(regret > 0).any(-1).repeat_interleave(4)[(regret < 0).flatten()]] == 0).all()  # fmt: skip
    torch.testing.assert_close(regret_matching(7 * regret), strategy)
    assert regret_matching(-torch.ones(4).double()).tolist() == [0.25] * 4


def test_the_mean_strategy_of_rock_paper_scissors_tends_to_all_three_alike() -> None:
    # Uneven stakes, so that the first strategy is no equilibrium; this one's is (1, 1, 2) / 4.
    uneven = CYCLE * torch.tensor([[1, 2, 1], [2, 1, 1], [1, 1, 1]]).double()
    for game, equilibrium in ((CYCLE, [1 / 3] * 3), (uneven, [0.25, 0.25, 0.5])):
        regret, mean = solved(game, 20000)
        torch.testing.assert_close(mean, torch.tensor(equilibrium).double(), atol=0.02, rtol=0)
        assert (regret <= 0.02).all(), "nothing is regretted at an equilibrium"


def test_payoffs_are_means_over_responses_and_antisymmetric() -> None:
    wins = torch.tensor([[0.5, 1.0, 0.0], [0.0, 0.5, torch.nan], [1.0, torch.nan, 0.5]]).double()
    found = payoffs(wins, torch.tensor([0, 1, 1]))
    assert found.tolist() == [[0.0, 0.0], [0.0, 0.0]]
    found = payoffs(wins, torch.tensor([0, 0, 1]))
    assert found[0, 1].item() == -0.5 and found[1, 0].item() == 0.5, "who was not compared does not count"


def pairs(batch: Batch) -> set[tuple[int, int]]:
    recipe = lspo()
    surrogate: Any = recipe.surrogate
    better, worse = surrogate.choose(credit(recipe, shaped(recipe, batch)))
    return set(zip(better.tolist(), worse.tolist(), strict=True))


def test_one_strategy_is_no_pair_and_names_do_not_count() -> None:
    reward = [1.0, 0.0, 0.5, 0.9]
    found = pairs(rows(reward, [0, 2, 1, 0]))
    assert found == {(0, 1), (3, 1), (0, 2), (3, 2), (2, 1)}
    assert pairs(rows(reward, [5, 0, 9, 5])) == found
    assert pairs(rows(reward, [3, 3, 3, 3])) == set()
    assert pairs(rows(reward * 2, [0, 2, 1, 0] * 2, [0] * 4 + [1] * 4)) == found | {(w + 4, r + 4) for w, r in found}


def test_a_game_without_a_best_strategy_teaches_nothing_and_a_judge_goes_before_the_reward() -> None:
    nan = torch.nan
    circle = torch.tensor([[nan, 0, 1], [1, nan, 0], [0, 1, nan]]).double()
    assert pairs(rows([3.0, 2.0, 1.0], [0, 1, 2], beats=circle)) == set()
    order = torch.tensor([[nan, 0, 0], [1, nan, 0], [1, 1, nan]]).double()
    assert (2, 0) in pairs(rows([3.0, 2.0, 1.0], [0, 1, 2], beats=order))


def test_without_strategies_every_row_plays_its_own() -> None:
    batch = rows([0.0, 1.0], [0, 0]).replace(thought=None)
    found = LatentRegret()(batch).reward
    assert found[1] > found[0]


def test_points_that_lie_together_are_one_cluster() -> None:
    points = torch.tensor([[0.0, 0], [9, 9], [0.1, 0], [9, 8.9], [0, 9]]).double()
    assert clusters(points, 3) == [0, 1, 0, 1, 2]
    assert clusters(points, 1) == [0] * 5
    assert clusters(torch.ones(3, 2).double(), 3) == [0, 0, 0], "no more clusters than different points"


def test_responses_know_their_cluster() -> None:
    class Two:
        async def generate(self, tokens: Any, *, n: int, **_: Any) -> list[Response]:
            return [Response([i % 2, i % 2], [0.0] * 2, [0.0] * 2, "eos") for i in range(n)]

        def embed(self, tokens: Tensor) -> Tensor:
            return torch.nn.functional.one_hot(tokens, 2).double()

    context = Context(Two())  # type: ignore[arg-type]
    found = asyncio.run(LatentStrategies(size=4, clusters=3).draw(Question((), 9, (0, 0, 0)), context))
    assert [r.thought for r in found] == [0, 1, 0, 1]


def test_strategies_grow_with_the_rounds() -> None:
    [more] = lspo(strategies=2, rounds=3, every=2).controllers
    assert [more.value(step) for step in range(7)] == [2, 2, 3, 3, 4, 4, 4]  # type: ignore[attr-defined]
    assert lspo(every=5).reference(5) == 1 and lspo(every=5).reference(4) == 0
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        lspo(every=0)
