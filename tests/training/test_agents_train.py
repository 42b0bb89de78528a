"""Methods for agents train in a world of several turns, those whose episodes are several rows too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from policyopt.registry import methods
from policyopt.training.config import Evaluation, Optim, TrainConfig
from policyopt.training.run import run
from tests.commands import lines

WORLD = Path(__file__).parents[1] / "echo.py"

CASES: dict[str, dict[str, Any]] = {
    "supo": {"full": 0.2, "overlong_mask": False}, "iterresearch-eapo": {"multiple": 4, "minibatches": 1}, "igpo": {},
    "multiturn-recipe": {}, "poad": {"group_size": 4}, "thor": {"rounds": 1}, "otc-po": {}, "tapo-tools": {"rounds": 2},
}  # fmt: skip
SEVERAL = {"supo", "iterresearch-eapo"}


@pytest.mark.parametrize("name", CASES)
def test_a_method_trains_on_episodes(name: str, tiny_model: Path, tmp_path: Path) -> None:
    recipe = methods()[name](**CASES[name])
    config = TrainConfig(
        recipe=recipe, model=str(tiny_model), steps=2, batch=4 * recipe.source.size, max_tokens=120, device="cpu", task="seeds",
        env=f"{WORLD}:Echo", out=tmp_path / "run", optim=Optim(lr=1e-3), eval=Evaluation(prompts=4), log_samples=100,
    )  # fmt: skip
    result = run(config, quiet=True)
    metrics = lines(result.out / "metrics.jsonl")
    for row in metrics[1:]:
        assert row["update/skipped"] == 0 and row["grad_norm"] > 0 and row["mismatch/max"] < 1e-4
        assert (row["responses"] > 4 * recipe.source.size) == (name in SEVERAL)
    assert all(x is not None for row in metrics for x in row.values()), "finite"
