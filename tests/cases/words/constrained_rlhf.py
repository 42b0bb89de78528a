"""What cases call things in constrained RLHF."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from policyopt.methods.judge.constrained_rlhf import ConstrainedAdvantage, constrained_rlhf, squash
from policyopt.steering import States, control


def _mixed(given: Mapping[str, Any]) -> dict[str, Any]:
    """Advantages of the components, whitened and mixed."""
    raw = given["lagrange"]
    mix = ConstrainedAdvantage(components=tuple(map(str, range(len(raw)))), lagrange=tuple(raw), **given["params"])
    constrained, close = (torch.tensor(given[k], dtype=torch.float64) for k in ("constraint_advantage", "kl_advantage"))
    return {"multiplier": list(squash(raw, mix.equality)), "advantage": mix.mixed(constrained, close)}


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


CASES = {"advantage": _mixed, "schedule": _dual}
