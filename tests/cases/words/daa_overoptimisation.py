"""What the cases of likelihood over-optimisation call things."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from policyopt.methods.analysis.daa_overoptimisation import TopK
from policyopt.rows import masked_mean

NAMES = {"topk_mass": "mass", "topk_entropy": "entropy", "topk_partial_entropy": "partial"}


def _metric(given: Mapping[str, Any]) -> dict[str, Any]:
    logits, mask = (torch.tensor(given[name], dtype=torch.float64) for name in ("logits", "mask"))
    places = torch.zeros(mask.shape, dtype=torch.long).flatten()
    found: dict[str, Any] = {}
    for name, what in NAMES.items():
        statistic = TopK(k=given["params"]["k"], what=what)  # type: ignore[arg-type]
        each = statistic(logits.reshape(-1, logits.shape[-1]), places, {}).reshape(mask.shape)
        found[f"{name}_per_token"], found[name] = each, masked_mean(each, mask)
    return found


CASES = {"metric": _metric}
