"""What cases call things in CASTILLO."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policyopt.methods.length.castillo import castillo


def _metrics(given: Mapping[str, Any]) -> dict[str, Any]:
    params = given["params"]
    [found] = castillo([given["length"]], params.get("cap"), params["percentiles"])
    return {
        "mean": found.mean,
        "std_ddof0": found.std_population,
        "std_ddof1": found.std,
        "percentile": [found.percentiles[p] for p in params["percentiles"]],
        "cv": found.cv,
        "min_index": found.shortest,
        "max_index": found.longest,
        "hit_cap": found.at_cap,
    }


CASES = {"metric": _metrics}
