"""What cases call things in SubPO."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from policyopt.methods.credit.subpo import gains, subpo
from policyopt.objective import advantages, token_gradients
from policyopt.rows import make_batch


def _advantage(given: Mapping[str, Any]) -> dict[str, Any]:
    """Gains are rewards of the step that leads to a state; the start is nobody's step."""
    states, weight = torch.tensor(given["states"]), torch.tensor(given["weight"], dtype=torch.float64)
    width = max(map(len, given["cover"]))
    cover = torch.tensor([[*elements, *[-1] * (width - len(elements))] for elements in given["cover"]])
    elements = cover[states]
    worth = weight[elements.clamp(min=0)]
    found = gains(elements, worth)
    logp = torch.tensor(given["logp"], dtype=torch.float64)
    mask = torch.ones_like(logp)
    batch = make_batch(
        mask=mask, reward=torch.zeros(len(logp)).double(), token_reward=found[:, 1:], logp=logp, old_logp=logp,
        group=torch.arange(len(logp)),
    )  # fmt: skip
    recipe = subpo(over="turns", baseline="none")
    credited = advantages(recipe, batch)
    held = credited - torch.tensor(given["baseline"], dtype=torch.float64)
    loss, gradients = token_gradients(recipe, batch.replace(advantage=held), {"logp": logp})
    return {
        "marginal_gain": found[:, 1:],
        "advantage": credited,
        "value": found.sum(-1),
        "additive_return": torch.where(elements >= 0, worth, 0.0).sum((1, 2)),
        "loss": loss,
        "dloss_dlogp": gradients["logp"],
    }


CASES = {"advantage": _advantage}
