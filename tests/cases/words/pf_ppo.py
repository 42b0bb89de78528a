"""What cases call things in PF-PPO."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch

from policyopt.lens.case import Run
from policyopt.methods.sampling.pf_ppo import RankWeight, weighted_r2

RANKS: dict[str, Literal["best", "best-random", "best-worst"]] = {
    "BoN": "best",
    "BR": "best-random",
    "BW": "best-worst",
}


def _shares(run: Run) -> dict[str, list[float]]:
    return {name: RankWeight(ranks=ranks).share(run.batch).tolist() for name, ranks in RANKS.items()}


def _trust(given: Mapping[str, Any]) -> dict[str, Any]:
    columns = (torch.tensor(given[name], dtype=torch.float64) for name in ("reward", "actual", "weight"))
    return {"r2": weighted_r2(*columns)}


KEYS = {"weight": _shares}
CASES = {"metric": _trust}
