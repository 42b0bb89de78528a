"""What the cases of the two-stage constrained actor-critic call things."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from policyopt.methods.target.two_stage_constrained_ac import constrained_optimum

ROLES = [f"auxiliary{i}" for i in range(1, 17)]


def _loss(given: Mapping[str, Any]) -> dict[str, Any]:
    """The log-probabilities of each auxiliary policy as a column of its role."""
    roles = ROLES[: len(given["auxiliary_logp"])]
    said = {f"logp_of[{role}]": x for role, x in zip(roles, given["auxiliary_logp"], strict=True)}
    rest = {name: x for name, x in given.items() if name != "auxiliary_logp"}
    return rest | said | {"params": {"auxiliaries": roles} | given["params"]}


def _optimum(given: Mapping[str, Any]) -> dict[str, Any]:
    policies, advantage, lam = (
        torch.tensor(x, dtype=torch.float64)
        for x in (given["auxiliary_policy"], given["advantage"], given["params"]["lam"])
    )
    best = constrained_optimum(policies, advantage, lam)
    return {
        "policy": best,
        "kl_to_auxiliary": torch.special.xlogy(best, best).sum() - torch.special.xlogy(best, policies).sum(-1),
        "expected_advantage": float(best @ advantage),
    }


GIVEN = {"loss": _loss}
CASES = {"weight": _optimum}
COLUMNS = {
    "behaviour_logp": ("old_logp", "token"),
    **{f"logp_of[{role}]": (f"logp_of[{role}]", "token") for role in ROLES},
}
KEYS = {"weight": lambda run: run.all_rows(run.part("surrogate").weights(run.credited))}
