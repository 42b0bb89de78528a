"""Words of DCPO, the one with dynamic clipping."""

import math
from collections.abc import Mapping
from typing import Any

import torch

from policyopt.lens.given import build_batch
from policyopt.methods.clip.dcpo_clipping import SmoothNormalise, VisitMoments

NAMES = ("count", "mean", "std")


def with_history(given: Mapping[str, Any]) -> dict[str, Any]:
    """The history of a case is a mapping from the number of a group to what is remembered of it."""
    known = given.get("history") or {}
    rows = [[known.get(str(g), {}).get(name, math.nan) for name in NAMES] for g in given["group"]]
    batch = build_batch(given, {}).replace(history=torch.tensor(rows, dtype=torch.float64))
    memory = {str(g): row for g, row in zip(given["group"], VisitMoments()(batch).tolist(), strict=True)}
    return {
        "advantage": SmoothNormalise()(batch)[:, 0],
        "history": {g: dict(zip(NAMES, row, strict=True)) for g, row in memory.items()},
    }


CASES = {"advantage": with_history}
KEYS = {
    "ratio_low": lambda run: run.part("surrogate").window(run.log_ratio, run.credited)[0] * run.credited.mask,
    "ratio_high": lambda run: run.part("surrogate").window(run.log_ratio, run.credited)[1] * run.credited.mask,
}
