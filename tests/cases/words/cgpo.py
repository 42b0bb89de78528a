"""What cases call things in CGPO."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from policyopt.lens.case import Run
from policyopt.methods.judge.cgpo import drift
from policyopt.registry import get_method

HERE = Path(__file__).parent

COLUMNS = {"satisfied": ("correct", "row"), "baseline_reward": ("baseline_reward", "row")}
PARAMS = {"agg": "aggregate"}

_OPTIMIZER: dict[str, Callable[[Run], Mapping[str, Any]]] = {
    "crpg": lambda run: {
        "regularised_reward": run.part("advantage").reward(run.batch),
        "advantage": run.value("advantage", [0.0]),
        "log_ratio": drift(run.batch).tolist(),
    },
    "codpo": lambda run: dict(
        zip(
            ("chosen", "rejected"),
            (i.tolist() if len(i) > 1 else int(i) for i in run.part("surrogate").pairs(run.credited)),
            strict=True,
        )
    ),
    "crraft": lambda run: {
        "picked": run.part("advantage").picked(run.batch),
        "log_ratio": drift(run.batch).tolist(),
    },
}


def _loss(given: Mapping[str, Any]) -> dict[str, Any]:
    """The optimiser that has the case's hyper-parameters: beta is DPO's, an aggregation that of the policy gradient."""
    params = given["params"]
    optimizer = "codpo" if "beta" in params else "crpg" if "agg" in params else "crraft"
    run = Run(get_method("cgpo"), "other", {**given, "params": {**params, "optimizer": optimizer}}, HERE)
    return {"loss": float(run.result[0]), "dloss_dlogp": run.gradient("logp"), **_OPTIMIZER[optimizer](run)}


CASES = {"loss": _loss}
