"""Words of GPPO."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from policyopt.lens.case import Run
from policyopt.registry import get_method

HERE = Path(__file__).parent


def loss(given: Mapping[str, Any]) -> dict[str, Any]:
    """Cases have the column ``correct`` among the hyper-parameters."""
    params = dict(given["params"])
    correct = params.pop("correct", None)
    column = {} if correct is None else {"correct": correct}
    run = Run(get_method("gppo-klear"), "", {**given, **column, "params": params}, HERE)
    return {"loss": run.result[0], "dloss_dlogp": run.gradient("logp")}


CASES = {"loss": loss}
