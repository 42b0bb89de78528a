"""What cases call things in ARM."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policyopt.methods.modes.arm_ada_grpo import arm_ada_grpo

from ._scheduled import scheduled

_EXTRA = "shape.RareModes.extra"


def _formats(given: Mapping[str, Any]) -> dict[str, Any]:
    """Formats as spans of one token, and the bonus as it stands at the step."""
    names = sorted({str(name) for name in given["format"]} - {"UNKNOWN", "None"}) or ["none"]
    params = given["params"]
    at = scheduled(arm_ada_grpo(decay_steps=params["total_steps"]), params["step"]).get(_EXTRA)
    spans = {f"format{i}": [[float(x == name)] for x in given["format"]] for i, name in enumerate(names, 1)}
    told = {name: x for name, x in given.items() if name not in ("format", "params")}
    rest = {name: x for name, x in params.items() if name not in ("step", "total_steps")}
    return {**told, **spans, "params": {**rest, "formats": tuple(names), _EXTRA: at}}


COLUMNS = {f"format{i}": (f"span[format{i}]", "token") for i in range(1, 65)}
GIVEN = {"advantage": _formats, "reward": _formats}
KEYS = {
    "alpha": lambda run: run.part("shape.RareModes").factor(run.batch),
    "scaled_reward": lambda run: run.shaped.reward,
}
