"""What cases call things in Kimi k1.5."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from policyopt.lens.case import Run
from policyopt.methods.length.kimi_k1_5 import kimi_k1_5


def _drawn(given: Mapping[str, Any]) -> dict[str, Any]:
    """How likely prompts come, from how often they were answered right."""
    curriculum = kimi_k1_5(**given["params"]).curriculum
    assert curriculum is not None
    weights = curriculum.weights(torch.tensor(given["success_rate"], dtype=torch.float64)[:, None])
    return {"prob": weights / weights.sum()}


def _length(run: Run) -> Any:
    part = run.part("shape.LengthReward")
    return part.coef * part.value(run.batch)


CASES = {"sampler": _drawn}
KEYS = {"length_reward": _length}
