"""What cases call things in MPO."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from policyopt.methods.judge.mpo_meta import Refinement, rubric_sum, within


def _reward(given: Mapping[str, Any]) -> dict[str, Any]:
    """Points of each item, null where it could not be read."""
    points = [[math.nan if x is None else float(x) for x in row] for row in given["item_score"]]
    return {"reward": rubric_sum(torch.tensor(points, dtype=torch.float64))}


def _refine(given: Mapping[str, Any]) -> dict[str, Any]:
    """When the rubric is rewritten, and by how much of what was proposed."""
    params = given["params"]
    part = Refinement(interval=params["interval"])
    return {
        "refine": [int(part.refines(u)) for u in given["update"]],
        "rubric_version_used": [part.version(u) for u in given["update"]],
        "merged_refinements": within(given["refinement_words"], params["word_limit"]),
    }


CASES = {"reward": _reward, "schedule": _refine}
