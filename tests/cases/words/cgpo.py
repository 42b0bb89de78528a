"""What cases call things in CGPO."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policyopt.lens.case import Run
from policyopt.methods.judge.cgpo import drift


def _optimizer(given: Mapping[str, Any]) -> dict[str, Any]:
    """The optimiser that has the case's hyper-parameters: beta is DPO's, an aggregation that of the policy gradient."""
    params = given["params"]
    optimizer = "codpo" if "beta" in params else "crpg" if "agg" in params else "crraft"
    return {**given, "params": {**params, "optimizer": optimizer}}


def _pair(run: Run, side: int) -> Any:
    """The row of the one pair, or those of all pairs."""
    rows = run.part("surrogate").choose(run.credited)[side].tolist()
    return rows if len(rows) > 1 else rows[0]


COLUMNS = {"satisfied": ("correct", "row")}
GIVEN = {"loss": _optimizer}
KEYS = {
    "log_ratio": lambda run: drift(run.batch),
    "regularised_reward": lambda run: run.part("advantage").reward(run.batch),
    "picked": lambda run: run.part("advantage").picked(run.batch),
    "chosen": lambda run: _pair(run, 0),
    "rejected": lambda run: _pair(run, 1),
}
