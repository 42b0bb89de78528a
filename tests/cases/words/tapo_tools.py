"""What cases call things in TAPO, of tools."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policyopt.objective import credit


def _told(given: Mapping[str, Any]) -> dict[str, Any]:
    params = dict(given["params"])
    longest, buffer = params.pop("max_len"), params.pop("buffer")
    return {**given, "params": {**params, "max_length": longest, "overlong_share": buffer / longest}}


GIVEN = {"loss": _told}
COLUMNS = {"model_tokens": ("true_length", "row")}
PARAMS = {"clip_dual": "dual"}
KEYS = {"advantage": lambda run: credit(run.recipe, run.shaped).advantage}
