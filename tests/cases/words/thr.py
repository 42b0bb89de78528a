"""What the cases of THR call things."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def _logits(row: Any) -> list[list[float]]:
    """Probabilities as logits; where there is no token, zeros."""
    return [
        [math.log(p) if p > 0 else -math.inf for p in probs] if any(probs or ()) else [0.0] * len(probs or ())
        for probs in row
    ]


def _told(given: Mapping[str, Any]) -> dict[str, Any]:
    """Right are the responses with a reward."""
    correct = {
        "correct": [float(reward > 0) for reward in given["reward"]],
        "logits": [_logits(r) for r in given["probs"]],
    }
    return correct | {name: x for name, x in given.items() if name != "probs"}


GIVEN = {"advantage": _told}
COLUMNS = {"token_ids": ("tokens", "token"), "logits": ("policy", "logits"), "hidden": ("hidden", "logits")}
KEYS = {
    "base_advantage": lambda run: run.all_rows(run.part("advantage").inner(run.credited)),
    "thr": lambda run: run.all_rows(run.part("advantage").reward(run.credited)),
    "keep": lambda run: run.all_rows(run.part("advantage").keep(run.credited).double()),
}
