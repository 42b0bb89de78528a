"""What cases call things in AdaCoT."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policyopt.lens.case import Run


def _labelled(given: Mapping[str, Any]) -> dict[str, Any]:
    """Prompts with a label."""
    return {**given, "params": {**given.get("params", {}), "needed": "needed"}}


def _decided(given: Mapping[str, Any]) -> dict[str, Any]:
    """The token in which a response decides, as a span; none where the index is below 0 or missing."""
    width = len(given["mask"][0])
    places = given.get("decision_index") or [None] * len(given["mask"])
    span = [[float(t == place) for t in range(width)] for place in places]
    told = {name: x for name, x in given.items() if name != "decision_index"}
    return {**told, "decision": span, "params": {**given.get("params", {}), "selective": True}}


def _due(at: int) -> Any:
    return lambda run: run.part("shape.TriggerPenalty").due(run.batch)[at]


def _kept(run: Run) -> Any:
    return run.part("weight.MeanOver").count(run.batch)


COLUMNS = {
    "base_reward": ("reward", "row"),
    "used_cot": ("component[thinks]", "row"),
    "needs_cot": ("component[needed]", "row"),
    "decision": ("span[Regex]", "token"),
}
PARAMS = {"gamma": "form_penalty", "aggregation": None}
GIVEN = {"reward": _labelled, "loss": _decided}
KEYS = {
    "miss": _due(0),
    "over": _due(1),
    "trigger_rate": lambda run: run.batch.component("thinks").mean(),
    "kept_mask": _kept,
}
