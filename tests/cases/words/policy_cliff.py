"""What the cases of policy-cliff call things."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from policyopt.methods.analysis.policy_cliff import soft_policy
from policyopt.parts.probe.tilt import optimal_set


def stability_bound(change: Tensor, alpha: float) -> Tensor:
    """How far, in L1, the soft policy can move at most when its values change by ``change`` [..., n]."""
    return change.abs().amax(-1) / alpha


def effective_reward(weights: Tensor, rewards: Tensor) -> Tensor:
    """One reward from K of them, [..., n]: weights [..., K], rewards [K, n]."""
    return weights @ rewards


def _best(value: Tensor, tie: float) -> list[int]:
    found: list[int] = optimal_set(value, tie).nonzero()[:, 0].tolist()
    return found


def _soft(q: Tensor, change: Tensor, alpha: float) -> dict[str, Any]:
    policy, perturbed = soft_policy(q, alpha), soft_policy(q + change, alpha)
    return {
        "alpha": alpha,
        "policy": policy.tolist(),
        "perturbed": perturbed.tolist(),
        "l1_change": float((perturbed - policy).abs().sum()),
        "l1_bound": float(stability_bound(change, alpha)),
        "expected_q": float((policy * q).sum()),
    }


def _metric(given: Mapping[str, Any]) -> dict[str, Any]:
    names = ("q", "perturbation", "rewards", "weights")
    q, change, rewards, weights = (torch.tensor(given[name], dtype=torch.float64) for name in names)
    tie = given["params"]["tie"]
    effective = effective_reward(weights, rewards)
    return {
        "optimal_set": _best(q, tie),
        "optimal_set_perturbed": _best(q + change, tie),
        "soft": [_soft(q, change, alpha) for alpha in given["params"]["alphas"]],
        "effective_reward": effective,
        "effective_optimal_set": [_best(row, tie) for row in effective],
    }


CASES = {"metric": _metric}
