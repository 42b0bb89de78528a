"""What the cases of grpo-d call things."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from policyopt.lens.case import Run
from policyopt.methods.divergence.grpo_d import grpo_d
from policyopt.objective import token_gradients
from policyopt.recipe import Recipe

from ._scheduled import scheduled


def coef(recipe: Recipe, step: float) -> float:
    """The weight of the KL at a step."""
    found: float = scheduled(recipe, step).get("regularizers.KL.coef")
    return found


def result(run: Run) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss and gradient at the step of the case."""
    recipe = scheduled(run.recipe, run.given["step"]).replace(shape=())
    return token_gradients(recipe, run.credited, {"logp": run.credited.logp})


def _schedule(given: Mapping[str, Any]) -> dict[str, Any]:
    p = given["params"]
    recipe = grpo_d(kl_start=p["beta_min"], kl_end=p["beta_max"], kl_steps=p["total_steps"])
    return {"beta": [coef(recipe, step) for step in given["step"]]}


COLUMNS = {"step": ("step", "free")}
PARAMS = {"beta_min": "kl_start", "beta_max": "kl_end", "total_steps": "kl_steps"}
KEYS = {
    "beta": lambda run: coef(run.recipe, run.given["step"]),
    "loss": lambda run: result(run)[0],
    "dloss_dlogp": lambda run: result(run)[1]["logp"],
}
CASES = {"schedule": _schedule}
