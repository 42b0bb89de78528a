"""Words of DCPO, the one with dynamic clipping."""

from __future__ import annotations

import math

import torch

from policyopt.lens.case import Run
from policyopt.lens.given import build_batch
from policyopt.rows import Batch

from ._grown import on_batch

NAMES = ("count", "mean", "std")


def _remembered(run: Run) -> Batch:
    """The history of a case is a mapping from the number of a group to what is remembered of it."""
    batch = build_batch(run.given, run.params, run.columns)
    known = run.given.get("history") or {}
    rows = [[known.get(str(g), {}).get(name, math.nan) for name in NAMES] for g in run.given.get("group", ())]
    return batch.replace(history=torch.tensor(rows, dtype=torch.float64)) if rows else batch


def _memory(run: Run) -> dict[str, dict[str, float]]:
    """What is remembered after the step."""
    memory = run.part("memory")(run.batch).tolist()
    return {str(g): dict(zip(NAMES, row, strict=True)) for g, row in zip(run.given["group"], memory, strict=True)}


COLUMNS = {"history": ("", "free")}
KEYS = on_batch(
    _remembered,
    {
        "history": _memory,
        "ratio_low": lambda run: run.part("surrogate").window(run.log_ratio, run.credited)[0] * run.credited.mask,
        "ratio_high": lambda run: run.part("surrogate").window(run.log_ratio, run.credited)[1] * run.credited.mask,
    },
)
