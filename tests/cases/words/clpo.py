"""What cases call things in CLPO."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from policyopt.lens.case import Run
from policyopt.methods.guidance.clpo import Restructured, clpo
from policyopt.objective import kept
from policyopt.registry import get_method
from policyopt.rows import make_batch

HERE = Path(__file__).parent

PARAMS = {"agg": "aggregate", "adv_eps": "advantage.inner.eps", "ddof": "advantage.inner.ddof"}


def _difficulty(given: Mapping[str, Any]) -> dict[str, Any]:
    """What becomes of prompts with given accuracies."""
    recipe = clpo(**given["params"])
    rollout: Restructured = recipe.source  # type: ignore[assignment]
    accuracy = torch.tensor(given["accuracy"], dtype=torch.float64)
    labels = [rollout.difficulty(share) for share in given["accuracy"]]
    batch = make_batch(mask=torch.ones(len(accuracy), 1), group=torch.arange(len(accuracy)), correct=accuracy)
    return {
        "label": labels,
        "rewrite": [rollout.kind(label) for label in labels],
        "keep": kept(recipe, batch).double(),
    }


def _loss(given: Mapping[str, Any]) -> dict[str, Any]:
    """Rows of prompts with given labels: what is hard has a pass rate of 0, what is not one of 1."""
    rate = [float(label != "hard") for label in given["label"]]
    rest = {name: x for name, x in given.items() if name != "label"}
    run = Run(get_method("clpo"), "objective", {**rest, "pass_rate": rate}, HERE)
    keys: dict[str, Any] = {"advantage": [0.0], "loss": 0.0, "dloss_dlogp": [[0.0]]}
    return {key: run.value(key, like) for key, like in keys.items()}


COLUMNS = {"pass_rate": ("pass_rate", "row")}
CASES = {"mask": _difficulty, "loss": _loss}
