"""The page of Curriculum GRPO."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from policyopt.methods.length.curriculum_length_grpo import WithBudget, curriculum_length_grpo
from policyopt.objective import shaped
from policyopt.recipe import Recipe
from policyopt.rows import make_batch
from policyopt.sources.draw import Announced
from policyopt.steering import States, control
from tests.methods.shared_judges import Echo, asked, ids_of, run


def rewards(recipe: Recipe, length: list[float], correct: list[float]) -> list[float]:
    n = len(length)
    batch = make_batch(
        mask=torch.ones(n, 1, dtype=torch.float64),
        group=torch.zeros(n, dtype=torch.long),
        true_length=torch.tensor(length, dtype=torch.float64),
        correct=torch.tensor(correct, dtype=torch.float64),
        reward=torch.zeros(n, dtype=torch.float64),
        **{f"span[{tag}]": torch.zeros(n, 1, dtype=torch.float64) for tag in ("think", "answer")},
    )
    found: list[float] = shaped(recipe, batch).reward.tolist()
    return found


def test_the_budget_falls_in_stairs_where_it_is_asked_paid_and_held_out() -> None:
    recipe, states = curriculum_length_grpo(b0=100.0, gamma=0.5, interval=3), States()
    seen = []
    for _ in range(30):
        recipe = control(recipe, {}, states)
        found = {recipe.get(f"{path}") for path in ("source.budget", "decode.budget", "shape.LengthReward.reference")}
        assert len(found) == 1
        seen += found
    assert seen == pytest.approx([max(1.0, 100 * 0.5 ** (t // 3)) for t in range(30)])
    assert control(curriculum_length_grpo(gamma=1.0), {}, {}).get("source.budget") == 256


def test_length_is_paid_around_the_budget_right_or_wrong() -> None:
    recipe = curriculum_length_grpo(b0=100.0)
    assert rewards(recipe, [0, 50, 100, 150, 200, 900], [0] * 6) == pytest.approx([0, 0.15, 0.3, 0.15, 0, 0])
    assert rewards(recipe, [100, 50], [1, 1]) == pytest.approx([0.9, 0.75]), "shorter than the budget is paid less"
    assert rewards(curriculum_length_grpo(lambda_l=0.0), [5, 256], [1, 1]) == pytest.approx([0.6, 0.6])


def test_the_prompt_says_the_budget_rounded_down_and_rows_stand_behind_it() -> None:
    question, context = asked()
    question = dataclasses.replace(question, text="a {budget}?")
    context = dataclasses.replace(context, frame=ids_of, room=200)
    found = run(WithBudget(size=2, budget=87.8), (question, context), (sampler := Echo("x", "y")))
    assert sampler.asked == [(said := "a {budget}?\nUse exactly 87 tokens.", 2)]
    assert all(r.context == ids_of(said) for r in found)
    short: Any = dataclasses.replace(context, room=5)
    [row] = run(WithBudget(size=1), (question, short), Echo("x"))
    assert row.context == (), "no room: the question alone"
    with pytest.raises(ValueError, match="where the question stands"):
        Announced(text="Answer.")
