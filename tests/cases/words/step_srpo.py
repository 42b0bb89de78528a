"""What cases call things in Step-SRPO."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policyopt.lens.case import Run


def _segmented(given: Mapping[str, Any]) -> dict[str, Any]:
    """Modes as numbers, segments as a span: 0 the judgement, 1 the rest, below 0 padding."""
    told = {name: x for name, x in given.items() if name not in ("mode", "preferred_mode", "segment", "accuracy")}
    params = dict(given.get("params", {}))
    told |= {
        "reward": given["accuracy"],
        "thinks": [float(m == "on") for m in given["mode"]],
        "mask": [[float(s >= 0) for s in row] for row in given["segment"]],
        "judged": [[float(s == 0) for s in row] for row in given["segment"]],
    }
    if "preferred_mode" in given:
        told["wanted"] = [float(m == "on") for m in given["preferred_mode"]]
        params["preferred"] = "wanted"
    return {**told, "params": params}


def _alone(which: str) -> Any:
    """The inner advantage on one of the two rewards."""

    def found(run: Run) -> Any:
        part = run.part("advantage")
        return part.inner(run.batch.replace(reward=getattr(part, which)(run.batch)))

    return found


COLUMNS = {
    "thinks": ("component[thinks]", "row"),
    "wanted": ("component[wanted]", "row"),
    "judged": ("span[judgement]", "token"),
}
GIVEN = {"advantage": _segmented}
KEYS = {
    "judge_reward": lambda run: run.part("advantage").matches(run.batch),
    "answer_reward": lambda run: run.part("advantage").answered(run.batch),
    "judge_advantage": _alone("matches"),
    "answer_advantage": _alone("answered"),
}
