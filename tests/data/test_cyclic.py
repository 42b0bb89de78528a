"""The testbed ``cyclic``."""

from __future__ import annotations

import pytest

from policyopt.data import load_task
from policyopt.data.cyclic import HABIT, LOSES, bradley_terry, judge_cyclic, prefers


def test_preferences_run_in_a_circle_and_no_move_loses_to_all() -> None:
    assert all(prefers(better, worse) == 1.0 and prefers(worse, better) == 0.0 for worse, better in LOSES.items())
    assert all(
        prefers(move, move) == 0.5 and prefers(move, "lizard") == 1.0 and prefers(None, move) == 0.0 for move in LOSES
    )
    assert prefers(None, "lizard") == 0.5
    assert {LOSES[LOSES[LOSES[move]]] == move for move in LOSES} == {True}


def test_a_fitted_reward_has_a_best_move_which_another_one_beats() -> None:
    score = bradley_terry()
    assert max(score, key=score.__getitem__) == "paper", "it beats rock, which is played most"
    assert sum(score.values()) == pytest.approx(0, abs=1e-9)
    even = bradley_terry(dict.fromkeys(HABIT, 1 / 3))
    assert list(even.values()) == pytest.approx([0, 0, 0], abs=1e-9), "played alike, nothing can be told"


def test_the_judge_says_who_wins_what_the_reward_is_and_what_is_a_move() -> None:
    said = judge_cyclic("round 1", ["#### rock", "hm", "#### paper"])
    assert said["score"] == [[0.5, 1.0, 0.0], [0.0, 0.5, 0.0], [1.0, 1.0, 0.5]]
    assert said["correct"] == [True, False, True]
    assert said["reward"][2] > said["reward"][0] > said["reward"][1]


def test_moves_follow_a_habit_and_each_question_has_all_three_as_rivals() -> None:
    task = load_task("cyclic", seed=3)
    answers = [task.train[i].answer for i in range(600)]
    assert {move: answers.count(move) / 600 for move in LOSES} == pytest.approx(HABIT, abs=0.06)
    assert {e.rivals for e in task.heldout} == {("#### rock", "#### paper", "#### scissors")}
