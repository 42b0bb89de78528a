"""The grid of a comparison: what it refuses, what it calls its cells, what a budget means."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from policyopt.comparing.grid import Budget, Contender, Grid, grid_from_dict, read_budget, spread, swept
from policyopt.errors import UserError
from policyopt.training.config import Evaluation, Optim, TrainConfig
from tests.comparing.grids import small, small_grid

MODEL = Path("model")


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("steps=60", Budget("steps", 60)),
        ("60", Budget("steps", 60)),
        ("tokens=200_000", Budget("tokens", 200_000)),
        ("seconds=1.5", Budget("seconds", 1.5)),
        ("tokens", Budget("tokens")),
    ],
)
def test_budgets_are_read(text: str, budget: Budget) -> None:
    assert read_budget(text) == budget


@pytest.mark.parametrize(
    "text", ["hours=2", "tokens=", "steps=0", "tokens=-5", "seconds=nan", "seconds=inf", "steps=1.5", "tokens=many"]
)
def test_other_budgets_are_refused(text: str) -> None:
    if text == "tokens=":
        assert read_budget(text) == Budget("tokens")
        return
    with pytest.raises(UserError, match="--budget"):
        read_budget(text)


def test_a_budget_ends_a_run() -> None:
    config = small(MODEL)
    assert Budget("steps", 7).within(config).steps == 7
    tokens = Budget("tokens", 5000).within(config)
    assert (tokens.stopping.tokens, tokens.stopping.seconds) == (5000, None) and tokens.steps > 10_000
    assert Budget("seconds", 2.5).within(config).stopping.seconds == 2.5
    assert Budget().within(config) == config
    assert Budget("tokens").within(config, 300).stopping.tokens == 300


def test_cells_are_matched_and_named_after_what_they_run() -> None:
    grid = small_grid(MODEL, seeds=(3, 5))
    cells = grid.opening()
    assert [(c.contender, c.seed, c.config.seed) for c in cells] == [
        ("grpo", 3, 3), ("dr-grpo", 3, 3), ("grpo", 5, 5), ("dr-grpo", 5, 5),
    ]  # fmt: skip
    assert len({c.folder for c in cells}) == 4
    assert [c.folder for c in small_grid(MODEL, seeds=(3, 5), out=Path("x")).opening()] == [c.folder for c in cells]
    other = small_grid(MODEL, seeds=(3, 5), steps=6).opening()
    assert not {c.folder for c in other} & {c.folder for c in cells}
    assert grid.following({}) == []


def test_what_the_first_one_takes_is_the_budget_of_the_others() -> None:
    grid = small_grid(MODEL, budget=Budget("tokens"))
    assert [(c.contender, c.seed) for c in grid.opening()] == [("grpo", 0), ("grpo", 1)]
    later = grid.following({1: {"tokens": 640.0, "seconds": 2.0}})
    assert [(c.contender, c.seed, c.config.stopping.tokens) for c in later] == [("dr-grpo", 1, 640)]


def test_a_grid_comes_back_from_its_plan() -> None:
    grid = small_grid(MODEL, budget=Budget("tokens", 900.0))
    again = grid_from_dict(grid.to_dict())
    assert again == grid
    assert [c.folder for c in again.opening()] == [c.folder for c in grid.opening()]


def _with(grid: Grid, config: TrainConfig, **changes: object) -> Grid:
    second = Contender("dr-grpo", dataclasses.replace(config, **changes))  # type: ignore[arg-type]
    return dataclasses.replace(grid, contenders=(grid.first, second))


def test_one_seed_is_refused() -> None:
    with pytest.raises(UserError, match="--seeds 1: one seed says nothing"):
        small_grid(MODEL, seeds=(0,)).check()


def test_one_contender_is_refused() -> None:
    grid = small_grid(MODEL)
    with pytest.raises(UserError, match="two methods"):
        dataclasses.replace(grid, contenders=grid.contenders[:1]).check()


def test_two_of_one_name_are_refused() -> None:
    grid = small_grid(MODEL)
    with pytest.raises(UserError, match="grpo is there twice"):
        dataclasses.replace(grid, contenders=(grid.first, grid.first)).check()


@pytest.mark.parametrize("change", [{"task": "countdown"}, {"max_tokens": 9}, {"eval": Evaluation(prompts=7)}])
def test_other_questions_are_refused(change: dict[str, object]) -> None:
    grid = small_grid(MODEL)
    with pytest.raises(UserError, match=f"dr-grpo has {next(iter(change))} .* same questions"):
        _with(grid, grid.first.config, **change).check()


def test_a_budget_that_ends_before_the_first_evaluation_is_refused() -> None:
    with pytest.raises(UserError, match="1 steps end before the first evaluation, after 2 steps"):
        small_grid(MODEL, budget=Budget("steps", 1)).check()
    with pytest.raises(UserError, match="tokens=20: ends before the first evaluation"):
        small_grid(MODEL, budget=Budget("tokens", 20)).check()
    small_grid(MODEL, budget=Budget("tokens", 20), eval=Evaluation(every=0, prompts=4)).check()


def test_a_schedule_to_an_unknown_last_step_is_refused() -> None:
    grid = small_grid(MODEL, budget=Budget("tokens", 90_000), optim=Optim(schedule="cosine"))
    with pytest.raises(UserError, match=r"--optim.schedule cosine .* budget of tokens"):
        grid.check()


def test_sweeps_are_all_combinations() -> None:
    assert [*swept([])] == [{}]
    assert [*swept(["optim.lr=1,2", "--batch=8,16"])] == [
        {"optim.lr": a, "batch": b} for a in ("1", "2") for b in ("8", "16")
    ]
    for wrong in ("optim.lr", "=1,2", "optim.lr="):
        with pytest.raises(UserError, match="a field and its values"):
            [*swept([wrong])]


def test_a_run_is_evaluated_five_times() -> None:
    assert [spread(small(MODEL, steps=n)).eval.every for n in (3, 40, 62)] == [1, 8, 12]
