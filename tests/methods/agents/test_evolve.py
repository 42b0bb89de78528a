"""The page of EVOLvE."""

from __future__ import annotations

import random
import re

import pytest

from policyopt.errors import UserError
from policyopt.methods.agents.evolve import Bandit, evolve, min_frac, opt_frac, regret, ucb

MEANS = (0.4, 0.6, 0.4, 0.4)


def pulled(steps: int, seed: int) -> list[int]:
    bandit, chance = Bandit(MEANS, [], []), random.Random(seed)
    for _ in range(steps):
        arm = ucb(bandit.pulls, bandit.sums).action
        bandit.actions.append(arm)
        bandit.rewards.append(float(chance.random() < MEANS[arm]))
    return bandit.actions


def test_every_arm_is_pulled_once_first_and_ties_go_to_the_first() -> None:
    assert ucb([1, 0, 0], [1.0, 0.0, 0.0]).action == 1
    assert ucb([2, 2], [1.0, 1.0]).action == 0


def test_an_optimal_learner_regrets_ever_less_and_pulls_the_best_arm_ever_more() -> None:
    runs = [pulled(800, seed) for seed in range(6)]
    first, second = (sum(regret(a, MEANS)[at] for a in runs) for at in (399, 799))
    assert second - first < first
    assert sum(opt_frac(a[400:], MEANS) for a in runs) > sum(opt_frac(a[:400], MEANS) for a in runs)
    assert sum(min_frac(a, 4) for a in runs) < sum(min_frac(a[:100], 4) for a in runs)
    greedy = [0] * 800
    assert min_frac(greedy, 4) == 0 and regret(greedy, MEANS)[799] == pytest.approx(2 * regret(greedy, MEANS)[399])


def test_the_guide_is_enough_to_do_what_the_learner_did() -> None:
    rows = evolve(arms=3, horizon=12, bandits=4, history="guide")
    assert len(rows) == 48 and rows == evolve(arms=3, horizon=12, bandits=4, history="guide")
    for row in rows:
        told = re.findall(r"(\w): \d+ pulls, mean ([\d.]+), bonus (inf|[\d.]+)", row["prompt"])
        best = max(float(mean) + float(bonus) for _, mean, bonus in told)
        near = [arm for arm, mean, bonus in told if float(mean) + float(bonus) >= best - 0.011]  # two digits are told
        assert row["completion"] in near


def test_a_raw_history_tells_every_pull() -> None:
    rows = evolve(arms=2, horizon=5, bandits=1)
    assert [row["prompt"].count("paid") for row in rows] == [0, 1, 2, 3, 4]
    assert rows[4]["prompt"].count("A paid") == sum(row["completion"] == "A" for row in rows[:4])


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UserError, match="arms is 27"):
        evolve(arms=27)
    with pytest.raises(UserError, match="gap is 0"):
        evolve(gap=0.0)
