"""What the cases of LeMo call things."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from policyopt.methods.analysis.lemo import block_scores, blocks_above, informativeness, kept_blocks, positions_in


def _mask(given: Mapping[str, Any]) -> dict[str, Any]:
    query, key = (torch.tensor(given[name], dtype=torch.float64) for name in ("q", "k"))
    params = given["params"]
    scores = block_scores(query, key, params["block"])
    informative = informativeness(scores)
    kept = kept_blocks(informative, params["remain"])
    return {
        "block_score": scores,
        "informativeness": informative,
        "kept_blocks": kept,
        "kept_positions": positions_in(kept, params["block"], query.shape[1]),
        "kept_blocks_by_threshold": blocks_above(informative, params["relative_threshold"]),
    }


CASES = {"mask": _mask}
