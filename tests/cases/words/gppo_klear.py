"""Words of GPPO."""

from collections.abc import Mapping
from typing import Any


def _columns(given: Mapping[str, Any]) -> dict[str, Any]:
    """Cases have the column ``correct`` among the hyper-parameters."""
    params = dict(given["params"])
    correct = params.pop("correct", None)
    return {**given, "params": params} | ({} if correct is None else {"correct": correct})


GIVEN = {"loss": _columns}
