"""What the cases of MBRCSL call things: rollouts are rows with a reward for each step, actions numbers whose squared error stands for the likelihood."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from policyopt.methods.sampling.mbrcsl import BestReward, mbrcsl
from policyopt.objective import kept
from policyopt.parts.advantage.gae import gae
from policyopt.rows import make_batch, masked_mean


def _mask(given: Mapping[str, Any]) -> dict[str, Any]:
    """What is known comes from the data; the rollouts are what the filter sees after it."""
    recipe = mbrcsl()
    data = torch.tensor(given["dataset_returns"], dtype=torch.float64)
    before = BestReward()(
        make_batch(mask=torch.ones(len(data), 1).double(), reward=data, group=torch.zeros(len(data), dtype=torch.long))
    )[0]
    steps = torch.tensor(given["rollout_rewards"], dtype=torch.float64)
    n = len(steps)
    zero = torch.zeros(n, dtype=torch.float64)
    batch = make_batch(
        mask=torch.ones_like(steps),
        reward=zero,
        token_reward=steps,
        group=torch.zeros(n, dtype=torch.long),
        history=before.expand(n, 1),
    )
    keep = kept(recipe, batch)
    returns = batch.total_reward()
    found: dict[str, Any] = {
        "threshold": float(before),
        "rollout_return": returns,
        "keep": keep.tolist(),
        "return_to_go": gae(batch.replace(old_value=torch.zeros_like(steps)), 1.0, 1.0),
        "desired_return": float(returns[keep].max()) if bool(keep.any()) else None,
    }
    if "predicted_action" in given:
        with torch.enable_grad():
            said = torch.tensor(given["predicted_action"], dtype=torch.float64, requires_grad=True)
            error = (said - torch.tensor(given["action"], dtype=torch.float64)) ** 2
            loss = masked_mean(error, keep[:, None].expand_as(error).double())
            [gradient] = torch.autograd.grad(loss, said)
        found |= {"loss": float(loss), "dloss_dpred": gradient}
    return found


CASES = {"mask": _mask}
