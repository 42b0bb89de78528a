"""What cases call things in COPO."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policyopt.methods.credit.copo import answer_entropy


def _numbered(given: Mapping[str, Any]) -> dict[str, Any]:
    """Answers by number."""
    number = {answer: i for i, answer in enumerate(dict.fromkeys(map(str, given["answer"])))}
    rest = {name: x for name, x in given.items() if name != "answer"}
    return rest | {"answer_id": [number[str(answer)] for answer in given["answer"]]}


GIVEN = dict.fromkeys(("loss", "advantage", "weight"), _numbered)
COLUMNS = {"answer_id": ("answer_id", "row")}
PARAMS = {"dual_clip": "dual"}
KEYS = {
    "local_advantage": lambda run: run.credited.advantage,
    "answer_entropy": lambda run: answer_entropy(run.batch),
    "global_advantage": lambda run: run.shaped.global_advantage,
    "local_weight": lambda run: run.shaped.local_weight,
}
