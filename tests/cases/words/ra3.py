"""What the cases of RA3 call things: one text, each of whose lines is a step of one token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from policyopt.methods.target.ra3 import LineCredit, kl_to_prior, step_reward
from policyopt.rows import make_batch


def _reward(given: Mapping[str, Any]) -> dict[str, Any]:
    params = given["params"]
    logp, keep, entropy = (
        torch.tensor(given[name], dtype=torch.float64) for name in ("expert_action_logp", "q_continue", "think_entropy")
    )
    pairs = zip(given["expert_action_logp"], given["think"], strict=True)
    reward = torch.tensor([[step_reward(x, bool(z), params["penalty"]) for x, z in pairs]], dtype=torch.float64)
    batch = make_batch(
        mask=torch.ones_like(reward),
        reward=torch.zeros(1, dtype=torch.float64),
        group=torch.zeros(1, dtype=torch.long),
        step_reward=reward,
        step_end=torch.arange(reward.shape[1])[None],
    )
    cost = kl_to_prior(keep, entropy, params["alpha"], params["latent_size"])
    return {
        "step_reward": reward[0],
        "return_to_go": LineCredit().to_go(batch)[0],
        "kl_to_prior": cost,
        "elbo": float((logp - cost).sum()),
    }


CASES = {"reward": _reward}
