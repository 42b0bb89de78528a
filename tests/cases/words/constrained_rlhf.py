"""What cases call things in constrained RLHF."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from policyopt.lens.case import Run
from policyopt.methods.judge.constrained_rlhf import ConstrainedAdvantage, constrained_rlhf, squash
from policyopt.steering import States, control


def _mix(run: Run) -> ConstrainedAdvantage:
    """The advantage with the case's multipliers before they are squashed."""
    raw = run.given["lagrange"]
    part: ConstrainedAdvantage = run.part("advantage")
    return dataclasses.replace(part, components=tuple(map(str, range(len(raw)))), lagrange=tuple(raw))


def _mixed(run: Run) -> Tensor:
    """Advantages of the components, whitened and mixed."""
    constrained, close = (
        torch.tensor(run.given[k], dtype=torch.float64) for k in ("constraint_advantage", "kl_advantage")
    )
    return _mix(run).mixed(constrained, close)


def _dual(given: Mapping[str, Any]) -> dict[str, Any]:
    """The multipliers after each step."""
    raw, names = tuple(given["lagrange"]), tuple(map(str, range(len(given["lagrange"]))))
    recipe = constrained_rlhf(names, tuple(given["threshold"]), **given["params"]).set("advantage.lagrange", raw)
    states: States = {}
    steps = []
    for measured in given["mean_return"]:
        said = {f"component/{name}": j for name, j in zip(names, measured, strict=True)}
        recipe = control(recipe, said, states)
        raw = recipe.get("advantage.lagrange")
        steps.append({"lagrange": list(raw), "multiplier": list(squash(raw, recipe.get("advantage.equality")))})
    return {"steps": steps}


COLUMNS = dict.fromkeys(("lagrange", "constraint_advantage", "kl_advantage"), ("", "free"))
KEYS = {
    "multiplier": lambda run: list(squash(run.given["lagrange"], _mix(run).equality)),
    "advantage": _mixed,
}
CASES = {"schedule": _dual}
