"""What cases call things in duration-aware gradients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policyopt.schema import member

_PARTS = {"valid": "valid", "prints": "prints_matched", "lower": "lower_is_better"}


def _graded(given: Mapping[str, Any]) -> dict[str, Any]:
    said = {f"part_{name}": [float(x) for x in given[word]] for name, word in _PARTS.items()}
    return {"reward": given["score"], "params": given["params"]} | said


COLUMNS = {
    "duration": (member("component", "seconds"), "row"),
    **{f"part_{name}": (member("component", name), "row") for name in _PARTS},
}
GIVEN = {"reward": _graded}
KEYS = {"weight": lambda run: run.part("weight.DurationWeight").weight(run.batch)}
