"""Ending early, and the model that was best."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from policyopt.errors import UserError
from policyopt.training.best import Best
from policyopt.training.config import Checkpoints, Evaluation, Stopping, TrainConfig
from policyopt.training.evaluate import Evaluator, Scores
from policyopt.training.run import run
from tests.runs import assert_same_end, left_behind, lines, power_cut, tiny_run
from tests.tiny import write_task

Make = Callable[..., TrainConfig]


@pytest.fixture
def make(tmp_path: Path, tiny_model: Path) -> Make:
    task = write_task(tmp_path / "task")

    def of(name: str = "run", **changes: Any) -> TrainConfig:
        short = {"steps": 7, "eval": Evaluation(every=1, prompts=2, samples=0)}
        return tiny_run(tmp_path / name, tiny_model, task, **(short | changes))

    return of


def measured(*accuracies: float) -> Any:
    """Evaluations find these, the first of them before training, one after the other by step."""
    call, version = Evaluator.__call__, {"step": -1}

    def found(self: Evaluator, *args: Any, **kwargs: Any) -> Scores:
        scores = call(self, *args, **kwargs)
        version["step"] += 1
        scores.summary["accuracy"] = accuracies[min(version["step"], len(accuracies) - 1)]
        return scores

    return mock.patch.object(Evaluator, "__call__", found)


def test_a_value_counts_that_is_better_by_more_than_the_least() -> None:
    best = Best("x", min_delta=0.1)
    seen = [best.see(i, {"x": x}) for i, x in enumerate([0.5, 0.59, 0.61, math.nan, 0.7])]
    assert seen == [True, False, True, False, False]
    assert (best.value, best.step, best.waited) == (0.61, 2, 2)


def test_less_is_better_where_that_is_said_and_steps_without_a_value_do_not_count() -> None:
    best = Best("x", mode="min")
    seen = [best.see(i, row) for i, row in enumerate([{"x": 1.0}, {}, {"x": None}, {"x": 0.5}, {"x": 0.5}])]
    assert seen == [True, False, False, True, False]
    assert best.waited == 1


def test_a_run_ends_where_nothing_improves_and_says_so(make: Make) -> None:
    with measured(0.1, 0.3, 0.2, 0.3, 0.4):
        summary = run(make(stopping=Stopping(metric="eval/accuracy", patience=2)), quiet=True).summary
    assert summary["steps"] == 3
    assert summary["stopped"] == "eval/accuracy has not improved in 2 measurements (the best is 0.3 at step 1)"


def test_a_run_without_the_wish_goes_on(make: Make) -> None:
    with measured(0.1, 0.0):
        assert run(make(steps=4), quiet=True).summary["stopped"] == "finished"


def test_the_best_model_is_kept_and_loads(make: Make) -> None:
    config = make(steps=4, checkpoints=Checkpoints(every=1, keep=9, best="eval/accuracy"))
    assert config.out is not None
    with measured(0.1, 0.2, 0.6, 0.3):
        summary = run(config, quiet=True).summary
    assert summary["best"] == {"metric": "eval/accuracy", "value": 0.6, "step": 2}
    kept = load_file(config.out / "best" / "model.safetensors")
    then = load_file(config.out / "checkpoints" / "step-000002" / "engine.safetensors")
    last = load_file(config.out / "model" / "model.safetensors")
    name = "model.norm.weight"
    saved = [x for key, x in then.items() if key.endswith(name) and x.shape == kept[name].shape]
    assert any(torch.equal(x, kept[name]) for x in saved)
    assert not torch.equal(kept[name], last[name])
    AutoModelForCausalLM.from_pretrained(config.out / "best")
    assert (
        "this is the model after step 2, where eval/accuracy was best (0.6)"
        in (config.out / "best" / "README.md").read_text()
    )
    assert "eval/accuracy 0.6 at step 2, kept in best/" in (config.out / "report.html").read_text()


def test_the_last_model_may_be_the_best_and_the_first_is_never_kept(make: Make) -> None:
    config = make("last", steps=2, checkpoints=Checkpoints(best="eval/accuracy"))
    assert config.out is not None
    with measured(0.1, 0.2, 0.3):
        assert run(config, quiet=True).summary["best"]["step"] == 2
    assert (config.out / "best" / "model.safetensors").read_bytes() == (
        config.out / "model" / "model.safetensors"
    ).read_bytes()
    config = make("first", steps=2, checkpoints=Checkpoints(best="eval/accuracy"))
    assert config.out is not None
    with measured(0.5, 0.2, 0.3):
        assert run(config, quiet=True).summary["best"] == {"metric": "eval/accuracy", "value": 0.5, "step": 0}
    assert not (config.out / "best").exists()


def test_a_resumed_run_stops_where_an_undisturbed_one_does(make: Make) -> None:
    """On real numbers: the reward of each step."""
    changes: dict[str, Any] = {
        "stopping": Stopping(metric="length/mean", patience=6, mode="min"),
        "checkpoints": Checkpoints(every=2, keep=2, best="reward/mean"),
        "eval": Evaluation(every=0, prompts=2, samples=0),
        "steps": 30,
    }
    config = make("undisturbed", **changes)
    assert config.out is not None
    stopped = run(config, quiet=True).summary
    assert 4 < stopped["steps"] < 30
    again = make("resumed", **changes)
    assert again.out is not None
    with power_cut(after=3):
        run(again, quiet=True)
    run(again, resume=again.out, quiet=True)
    assert_same_end(again.out, left_behind(config.out))
    at_end = lines(again.out / "metrics.jsonl")
    assert run(again, resume=again.out, quiet=True).summary["steps"] == stopped["steps"]
    assert lines(again.out / "metrics.jsonl") == at_end


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"stopping": Stopping(metric="eval/acuracy")}, "--stopping.metric eval/acuracy: the log has no such metric; nearest: eval/accuracy"),
        ({"checkpoints": Checkpoints(best="eval/pass@2")}, "--checkpoints.best eval/pass@2: the log has no such metric"),
        ({"checkpoints": Checkpoints(best="rewrd/mean")}, "--checkpoints.best rewrd/mean: the log has no such metric; nearest: reward/mean"),
    ],
)  # fmt: skip
def test_a_metric_that_is_not_measured_is_refused(changes: dict[str, Any], words: str, make: Make) -> None:
    with pytest.raises(UserError) as refused:
        run(make(**changes), quiet=True)
    assert words in str(refused.value)
