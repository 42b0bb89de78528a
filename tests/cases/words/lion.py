"""What the cases of Lion call things."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from policyopt.methods.settings.lion import Lion


def _steps(given: Mapping[str, Any]) -> dict[str, Any]:
    """A parameter under gradients that are given, one after the other."""
    params = given["params"]
    p = nn.Parameter(torch.tensor(given["param"], dtype=torch.float64))
    optimizer = Lion([p], params["lr"], (params["beta1"], params["beta2"]), params["weight_decay"])
    optimizer.state[p]["momentum"] = torch.tensor(given["momentum"], dtype=torch.float64)
    found = []
    for gradient in given["grad_sequence"]:
        p.grad = torch.tensor(gradient, dtype=torch.float64)
        optimizer.step()
        found.append({"param": p.tolist(), "momentum": optimizer.state[p]["momentum"].tolist()})
    return {"steps": found}


CASES = {"other": _steps}
