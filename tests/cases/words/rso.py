"""What the cases of rso call things."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policyopt.methods.games.rso import accepted_with, rejection_sample


def kept(given: Mapping[str, Any]) -> dict[str, Any]:
    """Which candidates are accepted, with the random numbers of the case."""
    beta, uniforms = given["params"]["beta"], given["uniforms"]
    found, passes = rejection_sample(given["reward"], beta, given["params"]["num_samples"], lambda n, i: uniforms[n][i])
    return {"accept_prob_first_pass": accepted_with(given["reward"], beta), "accepted": found, "passes": passes}


CASES = {"sampler": kept}
