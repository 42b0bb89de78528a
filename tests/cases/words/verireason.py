"""What cases call things in VeriReason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policyopt.schema import member

_CALLED = {
    "compiles": "syntax_ok", "vectors": "vector_match", "similarity": "similarity", "coverage": "coverage",
    "redundancy": "redundancy",
}  # fmt: skip


def _judged(given: Mapping[str, Any]) -> dict[str, Any]:
    rows = given["rows"]
    said = {f"part_{name}": [float(row[word] or 0) for row in rows] for name, word in _CALLED.items()}
    formatted = [float(row["format_ok"]) for row in rows]
    return {
        "reward": [0.0] * len(rows),
        "formatted": formatted,
        "group": given["group"],
        "params": given["params"],
    } | said


COLUMNS = {f"part_{name}": (member("component", name), "row") for name in _CALLED}
GIVEN = {"reward": _judged}
KEYS = {"ast_score": lambda run: run.part("shape.TestsElseStructure").structure(run.batch)}
