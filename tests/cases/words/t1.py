"""What cases call things in T1."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from policyopt.parts import EMA, Frozen


def _anchor(given: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of the reference after the steps of a policy."""
    eta = given["params"]["eta"]
    rule = Frozen() if eta == 1 else EMA(decay=eta)
    anchor = torch.tensor(given["anchor"], dtype=torch.float64)
    for step, policy in enumerate(torch.tensor(given["policy_trajectory"], dtype=torch.float64), 1):
        anchor = anchor + rule(step) * (policy - anchor)
    return {"anchor": anchor}


CASES = {"schedule": _anchor}
PARAMS = {"aggregation": lambda name: {"aggregate": name}}
