"""What cases call things in GCPO."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policyopt.lens.case import Run


def _weighed(given: Mapping[str, Any]) -> dict[str, Any]:
    """The format reward of a case has its weight in it."""
    return {**given, "params": {**given.get("params", {}), "format_weight": 1.0}}


def _mask(run: Run) -> dict[str, float]:
    """The sign of the bonus by prompt."""
    sign = run.part("shape.ContrastiveBonus").sign(run.batch).tolist()
    return dict(zip(map(str, run.given["group"]), sign, strict=True))


COLUMNS = {"accuracy": ("correct", "row"), "format": ("formatted", "row"), "used_tool": ("span[Regex]", "token")}
PARAMS = {"w_aux": "bonus", "w_len": "length_weight"}
GIVEN = {"reward": _weighed}
KEYS = {"mask": _mask}
