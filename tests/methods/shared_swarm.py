"""What several tests of methods share: runs that share what they have drawn through a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from policyopt.recipe import Recipe
from policyopt.training.config import Checkpoints, TrainConfig
from policyopt.training.run import run
from tests.runs import tiny_run


def train(out: Path, model: Path, task: dict[str, str], recipe: Recipe, **changes: Any) -> TrainConfig:
    changes = {"steps": 3, "checkpoints": Checkpoints(every=1, keep=9)} | changes
    config = tiny_run(out, model, task, recipe, **changes)
    run(config, quiet=True)
    return config
