"""What cases call things in S-GRPO."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from policyopt.lens.case import Run
from policyopt.registry import get_method

HERE = Path(__file__).parent

COLUMNS = {"exit": ("origin", "row")}


def _serial(given: Mapping[str, Any]) -> dict[str, Any]:
    """Exits from early to late in each group; the last row of a group is the whole response, which has number 0."""
    rows, seen, number = Counter(given["group"]), Counter[Any](), []
    for g in given["group"]:
        seen[g] += 1
        number.append(seen[g] % rows[g])
    run = Run(get_method("s-grpo"), "other", {**given, "exit": number}, HERE)
    return {key: run.value(key, [0.0]) for key in ("reward", "advantage")}


CASES = {"reward": _serial}
