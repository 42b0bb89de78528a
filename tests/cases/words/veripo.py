"""What cases call things in VerIPO."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from policyopt.methods.games.veripo import REASONS, verified


def _pairs(given: Mapping[str, Any]) -> dict[str, Any]:
    """The pairs of each prompt: chosen, rejected, and why."""
    rollouts = [(i, j, r) for i, group in enumerate(given["rollouts"]) for j, r in enumerate(group)]
    group = torch.tensor([i for i, _, _ in rollouts], dtype=torch.long)
    length = torch.tensor([r["length"] for _, _, r in rollouts])
    flags = (torch.tensor([bool(r[name]) for _, _, r in rollouts]) for name in ("correct", "consistent", "repetitive"))
    pairs: list[list[Any]] = [[] for _ in given["rollouts"]]
    for better, worse, reason in zip(*(x.tolist() for x in verified(group, length, *flags)), strict=True):
        pairs[rollouts[better][0]].append([rollouts[better][1], rollouts[worse][1], REASONS[reason]])
    return {"pairs": pairs}


CASES = {"other": _pairs}
