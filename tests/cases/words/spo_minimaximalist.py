"""What the cases of spo-minimaximalist call things."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def rows(given: Mapping[str, Any]) -> dict[str, Any]:
    """A case with its preferences as the column ``beats``: those of each group, or of one response against a queue, whose rows are of
    another origin and tie with each other."""
    if "pref" in given:
        tables, group = given["pref"], given["group"]
        more: dict[str, Any] = {}
    else:
        won = given["pref_vs_queue"]
        lost = [[1 - p, *[0.5] * len(won)] for p in won]
        tables, group = [[[0.5, *won], *lost]], [0] * (1 + len(won))
        more = {"origin": [0] + [1] * len(won)}
    beats = [[math.nan if i == j else p for j, p in enumerate(row)] for table in tables for i, row in enumerate(table)]
    length = [*given["length"], *[1] * (len(beats) - len(given["length"]))]
    mask = [[1.0] * n + [0.0] * (max(length) - n) for n in length]
    return {"beats": beats, "group": group, "mask": mask, "params": given["params"], **more}


GIVEN = {"reward": rows}
PARAMS = {"queue_size": "queue"}


def _own(run: Any, x: Any) -> Any:
    """What the policy drew now."""
    return x if run.batch.origin is None else x[run.batch.origin == 0]


def _per_step(run: Any) -> Any:
    """The reward of each step, the same for all of a response."""
    found = run.method(dense=True).shape[-1](run.shaped).token_reward
    return _own(run, found[:, 0])


KEYS = {"reward": lambda run: _own(run, run.shaped.reward), "reward_per_step": _per_step}
