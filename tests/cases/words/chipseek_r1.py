"""What cases call things in ChipSeek-R1."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from policyopt.methods.programs.chipseek_r1 import GATES
from policyopt.schema import member


def _mean(costs: list[float] | None) -> float:
    return math.prod(costs) ** (1 / len(costs)) if costs else 0.0


def _judged(given: Mapping[str, Any]) -> dict[str, Any]:
    rows = given["rows"]
    said = {
        "compiles": [float(row["functional"] != "fail") for row in rows],
        "passes": [float(row["functional"] == "pass") for row in rows],
        "synthesises": [float(row["synthesis"]) for row in rows],
        "cost": [_mean(row["ppa"]) for row in rows],
        "reference_cost": [_mean(given["reference_ppa"])] * len(rows),
    }
    return {"reward": [0.0] * len(rows), "group": given["group"], "params": given["params"]} | {
        f"part_{name}": said[name] for name in GATES
    }


COLUMNS = {f"part_{name}": (member("component", name), "row") for name in GATES}
PARAMS = {
    "pass": "passed", "compile_only": "compiled", "synthesis_bonus": "synthesised", "ref_zero_bonus": "without_reference",
}  # fmt: skip
GIVEN = {"reward": _judged}
