"""What cases call things in RL-Struct."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policyopt.data.structured import components, share_present
from policyopt.schema import member

ASPECTS = ("valid", "struct", "format", "correct", "length")


def _components(given: Mapping[str, Any]) -> list[dict[str, float]]:
    """What the judge says of responses, by what was found in them."""
    required: dict[str, Any] = {key: {} for key in given["required_keys"]}
    return [
        components(
            valid=r["valid"],
            struct=share_present(dict.fromkeys(r["keys"]), required),
            fenced=r["fenced"],
            correct=r["f1"],
            length=r["length"],
            max_length=given["params"]["max_length"],
        )
        for r in given["responses"]
    ]


def _judged(given: Mapping[str, Any]) -> dict[str, Any]:
    found = _components(given)
    columns = {f"part_{aspect}": [said[aspect] for said in found] for aspect in ASPECTS}
    right = [float(said["correct"] == 1) for said in found]  # the verdict, beside its aspect of this name
    return {**columns, "correct": right, "group": given["group"], "params": given["params"]}


COLUMNS = {f"part_{aspect}": (member("component", aspect), "row") for aspect in ASPECTS}
PARAMS = {"weights": dict}
GIVEN = {"reward": _judged}
KEYS = {"components": lambda run: _components(run.asked)}
