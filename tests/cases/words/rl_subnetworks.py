"""What the cases of rl-subnetworks call things."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from policyopt.methods.analysis.rl_subnetworks import (
    density,
    overlap,
    rl_subnetworks,
    sparsity,
    subnetwork_gradient,
    updated,
)


def _metric(given: Mapping[str, Any]) -> dict[str, Any]:
    names = ("theta_init", "theta_a", "theta_b", "gradient")
    start, a, b, gradient = (torch.tensor(given[name], dtype=torch.float64) for name in names)
    tolerance = rl_subnetworks(tolerance=given["params"]["tolerance"]).get("probes.UpdateSparsity.tolerance")
    a, b = updated(start, a, tolerance), updated(start, b, tolerance)
    return {
        "updated_a": a.int(),
        "updated_b": b.int(),
        "sparsity_a": sparsity(a),
        "sparsity_b": sparsity(b),
        "overlap_a_to_b": overlap(a, b),
        "overlap_b_to_a": overlap(b, a),
        "chance_a_to_b": density(b),
        "chance_b_to_a": density(a),
        "masked_gradient": subnetwork_gradient(gradient, a),
    }


CASES = {"metric": _metric}
