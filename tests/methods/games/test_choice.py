"""How inpo and rso choose the responses that they compare."""

from __future__ import annotations

import asyncio
import random

import pytest
import torch

from policyopt.methods.games.inpo import Bout
from policyopt.methods.games.inpo import tournament as duels
from policyopt.methods.games.rso import accepted_with, rejection_sample


def by(*strength: float) -> list[list[float]]:
    return [[0.5 if a == b else float(a > b) for b in strength] for a in strength]


def tournament(preferred: list[list[float]]) -> Bout:
    """The tournament of which all answers are known."""

    async def duel(i: int, j: int) -> float:
        return preferred[i][j]

    return asyncio.run(duels(len(preferred), duel))


@pytest.mark.parametrize("k", [2, 3, 4, 5, 8, 11, 16])
def test_a_clear_order_gives_the_best_and_the_worst(k: int) -> None:
    strength = random.Random(k).sample(range(k), k)
    found = tournament(by(*strength))
    assert found.winner == strength.index(k - 1)
    assert found.keep
    if k % 2 == 0:
        assert found.loser == strength.index(0)
        assert found.comparisons == k // 2 + 2 * (k // 2 - 1) + 1


def test_on_a_tie_the_first_wins_and_a_pair_that_fails_the_last_check_is_left_out() -> None:
    assert tournament(by(1, 1)) == Bout(0, 1, 2, True)
    circle = [[0.5, 1, 0], [0, 0.5, 1], [1, 0, 0.5]]
    assert tournament(circle) == Bout(2, 2, 3, False), "nobody is both"
    upset = by(4, 2, 3, 1)
    upset[3][0], upset[0][3] = 1.0, 0.0
    assert tournament(upset) == Bout(0, 3, 5, False)
    with pytest.raises(ValueError, match="a tournament of 1: take at least 2"):
        tournament([[0.5]])


def test_the_best_of_a_pass_is_always_accepted_and_a_constant_changes_nothing() -> None:
    rewards = [0.3, -1.0, 2.0, 0.7]
    chance = accepted_with(rewards, 0.5)
    assert max(chance) == chance[2] == 1.0
    assert accepted_with([r + 5 for r in rewards], 0.5) == pytest.approx(chance)
    assert accepted_with([], 0.5) == []


def test_from_all_to_the_best() -> None:
    rewards, chance = [0.3, -1.0, 2.0, 0.7, 1.9], random.Random(0)
    assert rejection_sample(rewards, 1e9, 3, lambda n, i: chance.random()) == ([0, 1, 2], 1), "the first that come"
    assert rejection_sample(rewards, 1e-9, 3, lambda n, i: chance.random()) == ([2, 4, 3], 3), "in the order of rewards"
    found, _ = rejection_sample(rewards, 1.0, 9, lambda n, i: chance.random())
    assert sorted(found) == list(range(5)), "no more than there are"
    assert rejection_sample([], 1.0, 3, lambda n, i: 0.0) == ([], 0)


def test_what_is_accepted_follows_the_tilted_policy() -> None:
    rewards, chance = [0.0, 1.0, 2.0], random.Random(1)
    kept = [0, 0, 0]
    for _ in range(300):
        drawn = chance.choices(range(3), k=40)
        scores = [rewards[x] for x in drawn]
        most = max(scores)
        for i in rejection_sample(scores, 1.0, 4, lambda n, i: chance.random())[0]:
            kept[drawn[i]] += 1
        assert most == 2.0
    tilted = torch.tensor(rewards).softmax(0)
    assert (torch.tensor(kept) / sum(kept)).tolist() == pytest.approx(tilted.tolist(), abs=0.04)


@pytest.mark.parametrize(
    ("rewards", "beta"), [([1.0], 0.0), ([1.0], float("nan")), ([float("nan")], 1.0), ([float("inf")], 1.0)]
)
def test_what_cannot_be_sampled_is_refused(rewards: list[float], beta: float) -> None:
    with pytest.raises(ValueError, match="a beta above 0 and finite rewards"):
        rejection_sample(rewards, beta, 1, lambda n, i: 0.0)
