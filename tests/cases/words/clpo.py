"""What cases call things in CLPO."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policyopt.lens.case import Run


def _prompts(given: Mapping[str, Any]) -> dict[str, Any]:
    """Prompts of one response each, whose verdict is the accuracy."""
    return {**given, "correct": given["accuracy"], "group": list(range(len(given["accuracy"])))}


def _labelled(given: Mapping[str, Any]) -> dict[str, Any]:
    """Rows of prompts with given labels: what is hard has a pass rate of 0, what is not one of 1."""
    rest = {name: x for name, x in given.items() if name != "label"}
    return {**rest, "pass_rate": [float(label != "hard") for label in given["label"]]}


def _labels(run: Run) -> list[str]:
    rollout: Any = run.recipe.source
    return [rollout.difficulty(share) for share in run.given["accuracy"]]


COLUMNS = {"accuracy": ("", "free")}
GIVEN = {"mask": _prompts, "loss": _labelled}
KEYS = {
    "label": _labels,
    "rewrite": lambda run: [run.recipe.source.kind(label) for label in _labels(run)],
}
