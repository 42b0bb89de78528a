"""What the cases of rso call things."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policyopt.methods.games.rso import accepted_with, rejection_sample

from ._pairs import KEYS as KEYS
from ._pairs import told


def _sampled(given: Mapping[str, Any]) -> dict[str, Any]:
    beta, wanted = given["params"]["beta"], given["params"]["num_samples"]
    accepted, passes = rejection_sample(given["reward"], beta, wanted, lambda at, i: given["uniforms"][at][i])
    return {"accept_prob_first_pass": accepted_with(given["reward"], beta), "accepted": accepted, "passes": passes}


def _pairs(given: Mapping[str, Any]) -> dict[str, Any]:
    """Two responses to each prompt are one pair, whoever comes first."""
    batch = told(given)
    return batch | {"noise": [[0.0 for _ in row] for row in batch["mask"]]}


GIVEN = {"preference_loss": _pairs}
CASES = {"sampler": _sampled}
PARAMS = {
    "gamma": lambda x: {"loss": "hinge", "gamma": x},  # cases with a loss are those of the hinge, unless they say more
    "loss": lambda x: {"loss": {"logistic": "sigmoid"}.get(x, x)},
    "link": lambda x: {"loss": {"logistic": "sigmoid"}.get(x, x)},
}
