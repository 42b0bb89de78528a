"""What cases call things in ExPO."""

from __future__ import annotations

from typing import Any

from policyopt.lens.given import CHOICES

from ._scripted import beside, with_targets
from .tulu3 import preference

COLUMNS = {"source": ("origin", "row")}


def _aggregate(name: str) -> dict[str, Any]:
    return {"aggregate.inner": CHOICES["aggregate"][1][name]()}


def _mean(name: str) -> dict[str, Any]:
    if name != "sequence-sum, mean over prompts":
        raise ValueError(f"sft_norm {name!r}: the library sums over tokens and takes the mean over prompts")
    return {}


PARAMS = {
    "agg": _aggregate,
    "sft_norm": _mean,
}


GIVEN = {"loss": lambda given: with_targets(given, "expl", list(dict.fromkeys(given["group"])))}
KEYS = beside("expl")
CASES = {"preference_loss": preference}
