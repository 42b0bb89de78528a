"""What cases call things in OSPO."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from policyopt.methods.agents.ospo import SameStep, ospo
from policyopt.objective import token_gradients
from policyopt.rows import make_batch


def _loss(given: Mapping[str, Any]) -> dict[str, Any]:
    """One step of a fleet, each agent with a row; an idle one has no token."""
    params = given["params"]
    acting = torch.tensor([x is not None for x in given["step_reward"]])
    worth = torch.tensor([x or 0.0 for x in given["step_reward"]], dtype=torch.float64)
    earned, old, now = (torch.tensor(given[n], dtype=torch.float64) for n in ("cumulative_reward", "old_logp", "logp"))
    group = torch.zeros(len(worth), dtype=torch.long)
    part = SameStep(fairness=params["fairness"])
    apart = part.apart(earned, earned + worth, group)
    advantage = part.at_once(worth, acting, group) - part.fairness * apart
    batch = make_batch(
        mask=acting[:, None].double(), group=group, advantage=advantage[:, None], old_logp=old, reward=worth
    )
    loss, found = token_gradients(ospo(low=params["clip_low"], high=params["clip_high"]), batch, {"logp": now})
    return {
        "fairness_term": -part.fairness * apart[0],
        "advantage": [float(a) if on else None for a, on in zip(advantage, acting, strict=True)],
        "loss": loss,
        "dloss_dlogp": found["logp"],
    }


CASES = {"loss": _loss}
