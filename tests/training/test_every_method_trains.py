"""Every method of the registry trains: whole steps, from the prompt to the changed weights and the log."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from policyopt import schema
from policyopt.parts import RowSelector
from policyopt.recipe import Recipe
from policyopt.registry import Method
from policyopt.sources.draw import GroupFrom
from policyopt.training.config import Checkpoints, Evaluation, Optim, TrainConfig
from policyopt.training.run import run
from tests.batches import COVERING_METHODS
from tests.commands import lines, write_rows

JUDGE = '''
def vowels(prompt, response, answer):
    """Right about every second time, and in form, whatever an untrained model writes."""
    return {"score": len(response) / 10, "correct": sum(map(ord, response)) % 2 == 0, "formatted": True}
'''


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    place = tmp_path_factory.mktemp("task")
    (place / "judge.py").write_text(JUDGE)
    texts = {
        "solution": "#### ?", "completion": "is it", "chosen": "it is", "rejected": "no", "label": True,
        "responses": ["a", "b c", "it", "of"], "scores": [0.0, 0.5, 1.0, 0.25], "chosen_score": 1.0, "rejected_score": 0.0,
    }  # fmt: skip
    data = write_rows(
        place / "data.jsonl", ({"prompt": f"{i}?", "answer": "?"} | texts | {"label": i % 2 == 0} for i in range(32))
    )
    return {"task": str(data), "judge": f"{place / 'judge.py'}:vowels"}


WORLD = Path(__file__).parents[1] / "echo.py"


def acts(recipe: Recipe) -> bool:
    """Whether a recipe reads what an environment says turn by turn."""
    return any(schema.known(name).filled_by == "environment" for name in recipe.needs)


@COVERING_METHODS
def test_a_method_trains(method: Method, tiny_model: Path, task: dict[str, str], tmp_path: Path) -> None:
    recipe = method()
    drawn = "sampler" in recipe.source.services
    prompts = max(4, recipe.update.minibatches)
    where: dict[str, Any] = {"task": "seeds", "env": f"{WORLD}:Echo"} if acts(recipe) else dict(task)
    config = TrainConfig(
        recipe=recipe, model=str(tiny_model), steps=2, batch=prompts * recipe.source.size,
        max_tokens=40 if acts(recipe) or "step_reward" in recipe.needs else 8, device="cpu",
        teacher=str(tiny_model) if "teacher" in recipe.roles else None,
        out=tmp_path / "run", optim=Optim(lr=1e-3), eval=Evaluation(prompts=4, samples=2, k=2), log_samples=100,
        checkpoints=Checkpoints(keep=1), **where,
    )  # fmt: skip
    result = run(config, quiet=True)

    before, after = load_file(tiny_model / "model.safetensors"), load_file(result.out / "model" / "model.safetensors")
    metrics = lines(result.out / "metrics.jsonl")
    assert [row["step"] for row in metrics] == [0, 1, 2]
    missing = [(row["step"], name) for row in metrics for name, value in row.items() if value is None]
    assert not missing, "null stands for what is not finite"
    for row in metrics[1:]:
        assert row["update/skipped"] == 0
        assert row["update/count"] == recipe.update.epochs * recipe.update.minibatches
        assert row["prompts"] >= prompts
        assert row["grad_norm"] > 0
        if drawn:
            assert 0 < row["signal/groups"] <= 1
            assert 0 < row["entropy"] < math.log(102)
            if not isinstance(recipe.source, GroupFrom) or recipe.source.own:  # else the policy writes nothing
                assert row["mismatch/max"] < 1e-4
        else:
            assert row["loglik"] < 0
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert all(x.isfinite().all() for x in after.values())

    trained = [row for row in lines(result.out / "samples.jsonl") if row["phase"] == "train"]
    by_row = any(isinstance(f, RowSelector) for f in recipe.filter)
    least = config.batch if drawn and not by_row else prompts  # single rows that a filter drops are not drawn again
    assert len(trained) >= 2 * min(least, 100), "a rollout may add rows to those of the groups"
    if recipe.surrogate is not None:  # then the loss is read off distributions, not off tokens
        assert any(w != 0 for row in trained for w in row["weights"])
    assert all(len(row["weights"]) == len(row["pieces"]) == row["length"] for row in trained)
    summary = json.loads((result.out / "summary.json").read_text())
    assert (summary["method"], summary["steps"], summary["stopped"]) == (method.name, 2, "finished")
    assert {"accuracy", "format", "length", "pass@2"} <= summary["before"].keys() & summary["after"].keys()
    assert (result.out / "report.html").stat().st_size > 10_000
