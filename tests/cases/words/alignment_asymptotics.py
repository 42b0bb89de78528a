"""What the cases of alignment-asymptotics call things."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from policyopt.methods.analysis.alignment_asymptotics import best_of, best_of_kl, kl, strength_at
from policyopt.parts.probe.tilt import tilt


def _row(base: Tensor, reward: Tensor, n: int) -> dict[str, Any]:
    """Best of n, and the tilt at the same distance from the base."""
    best = best_of(base, reward, n)
    distance = kl(best, base)
    strength = strength_at(base, reward, float(distance))
    tilted = tilt(base, reward, strength)
    return {
        "n": n,
        "bon": best.tolist(),
        "kl_bon": float(distance),
        "kl_formula": best_of_kl(n),
        "reward_bon": float((best * reward).sum()),
        "lambda_same_kl": strength,
        "tilted_same_kl": tilted.tolist(),
        "reward_tilted": float((tilted * reward).sum()),
        "kl_bon_to_tilted": float(kl(best, tilted)),
    }


def _metric(given: Mapping[str, Any]) -> dict[str, Any]:
    base, reward = (torch.tensor(given[name], dtype=torch.float64) for name in ("base", "reward"))
    return {"rows": [_row(base, reward, n) for n in given["params"]["n"]]}


CASES = {"metric": _metric}
