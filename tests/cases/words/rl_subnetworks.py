"""What the cases of rl-subnetworks call things."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from policyopt.methods.analysis.rl_subnetworks import rl_subnetworks, sparsity, updated


def overlap(a: Tensor, b: Tensor) -> Tensor:
    r"""The share of the weights in the mask ``a`` that are in ``b`` too, :math:`|a \cap b|/|a|`.

    One-sided, and :func:`density` of ``b`` by chance; NaN where ``a`` is empty.
    """
    return (a & b).double().sum() / a.double().sum()


def density(mask: Tensor) -> Tensor:
    """The share of the weights that are in the mask."""
    return 1 - sparsity(mask)


def subnetwork_gradient(gradient: Tensor, moved: Tensor) -> Tensor:
    """The gradient with which only the weights in the mask ``moved`` are trained: 0 elsewhere, whatever stood there."""
    return torch.where(moved, gradient, torch.zeros_like(gradient))


def _metric(given: Mapping[str, Any]) -> dict[str, Any]:
    names = ("theta_init", "theta_a", "theta_b", "gradient")
    start, a, b, gradient = (torch.tensor(given[name], dtype=torch.float64) for name in names)
    (probe,) = rl_subnetworks(tolerance=given["params"]["tolerance"])
    tolerance = probe.tolerance  # type: ignore[attr-defined]
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
