"""What cases call things in PALU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from policyopt.methods.length.palu import palu
from policyopt.rows import make_batch

_CALLED = {"C": "success", "tau": "tau", "L_min": "least"}


def _updates(given: Mapping[str, Any]) -> dict[str, Any]:
    """What becomes of the budget of each prompt, by itself."""
    params, found = given["params"], {}
    recipe = palu(**{_CALLED[name]: x for name, x in params.items() if name != "L_max"})
    assert recipe.memory is not None
    for name, drawn in given["rollouts"].items():
        n, budget = len(drawn["length"]), float(given["budget"][name])
        batch = make_batch(
            mask=torch.ones(n, 1, dtype=torch.float64),
            group=torch.zeros(n, dtype=torch.long),
            true_length=torch.tensor(drawn["length"], dtype=torch.float64),
            correct=torch.tensor(drawn["correct"], dtype=torch.float64),
            reward=torch.zeros(n, dtype=torch.float64),
            budget=torch.full((n,), budget, dtype=torch.float64),
        )
        new = float(recipe.memory(batch)[0, 0])
        right = [c and x <= budget for c, x in zip(drawn["correct"], drawn["length"], strict=True)]
        restored = new == 0
        found[name] = {
            "pass_rate": sum(map(bool, right)) / n,
            "alpha": 0.0 if restored else budget - new,
            "new_budget": params["L_max"] if restored else new,
        }
    return {"update": found}


CASES = {"schedule": _updates}
