"""What cases call things in HICRA."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from policyopt.methods.credit.hicra import semantic_entropy


def _metric(given: Mapping[str, Any]) -> dict[str, Any]:
    return {"semantic_entropy": semantic_entropy(torch.tensor(given["gram_counts"], dtype=torch.float64))}


COLUMNS = {"planning_mask": ("span[Phrases]", "token")}
CASES = {"metric": _metric}
