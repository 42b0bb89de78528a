"""What cases call things in SUPO."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policyopt.objective import credit


def _rows(given: Mapping[str, Any]) -> dict[str, Any]:
    """What is said of trajectories, for each of their rows."""
    rest = {k: x for k, x in given.items() if k not in ("trajectory_reward", "overlong")}
    reward, overlong = (
        [given[name][str(j)] for j in given["trajectory"]] for name in ("trajectory_reward", "overlong")
    )
    return {**rest, "reward": reward, "truncated": overlong}


GIVEN = {"loss": _rows}
COLUMNS = {"trajectory": ("episode", "row")}
KEYS = {
    "advantage": lambda run: credit(run.recipe, run.shaped).advantage,
    "row_in_loss": lambda run: run.used.double(),
}
