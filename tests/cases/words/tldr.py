"""What cases call things in TLDR."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from policyopt.methods.length.tldr import LEVELS, scaled


def _drawn(given: Mapping[str, Any]) -> dict[str, Any]:
    """What the next token is drawn from, with the temperature and without."""
    params, logits = given["params"], torch.tensor(given["logits"], dtype=torch.float64)
    return {
        "prob": scaled(logits, params["eot_id"], params["eot_temperature"]).softmax(-1),
        "prob_plain": logits.softmax(-1),
    }


def _levels(given: Mapping[str, Any]) -> dict[str, Any]:
    """Levels by number."""
    return {**given, "level": [LEVELS.index(name) for name in given["level"]]}


COLUMNS = {"level": ("level", "row")}
GIVEN = {"reward": _levels}
PARAMS = {"alpha": lambda prices: {f"alpha_{name}": x for name, x in prices.items()}, "L_max": "max_len"}
CASES = {"sampler": _drawn}
