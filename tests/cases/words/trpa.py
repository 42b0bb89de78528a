"""What the cases of trpa call things."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from policyopt.lens.case import Run
from policyopt.registry import get_method

HERE = Path(__file__).parent


def levels(given: Mapping[str, Any]) -> dict[str, Any]:
    """A case whose rules have spoken: the best level, 1, is right, and the reward only orders the levels."""
    columns = {name: x for name, x in given.items() if name != "level"}
    columns["reward"] = [-float(level) for level in given["level"]]
    columns["correct"] = [float(level == 1) for level in given["level"]]
    run = Run(get_method("trpa"), "weight", columns, HERE)
    better, _ = run.part("surrogate").pairs(run.credited)
    return {"n_pairs": len(better), "loss": run.result[0], "dloss_dlogp": run.gradient("logp")}


CASES = {"loss": levels}
