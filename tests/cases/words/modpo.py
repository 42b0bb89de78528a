"""What cases call things in MODPO."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policyopt.schema import column

from ._pairs import KEYS as KEYS
from ._pairs import SIDES, told

MARGINS = tuple(f"objective{k}" for k in range(1, 9))
"""Columns of the rewards of other objectives."""
for _name in MARGINS:
    column(_name, sentence="the reward of another objective", filled_by="program")
COLUMNS = {name: (name, "row") for name in MARGINS}


def _given(given: Mapping[str, Any]) -> dict[str, Any]:
    """The rewards of each objective as a column of its own."""
    others = len(given["params"]["w"]) - 1
    flat = {
        f"{side}_{name}": [row[k] for row in given[f"{side}_margin_reward"]]
        for side in SIDES
        for k, name in enumerate(MARGINS[:others])
    }
    return told({**given, **flat}, numbers={name: f"{{}}_{name}" for name in MARGINS[:others]})


GIVEN = {"preference_loss": _given}
PARAMS = {"w": lambda w: {"weights": tuple(w), "objectives": MARGINS[: len(w) - 1]}, "variant": "link"}
