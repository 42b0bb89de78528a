"""What cases call things in the multi-turn recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from policyopt.methods.agents.multiturn_recipe import multiturn_recipe
from policyopt.objective import shaped
from policyopt.parts.advantage.gae import token_rewards
from policyopt.rows import make_batch, pad


def _placed(given: Mapping[str, Any]) -> dict[str, Any]:
    """The reward of each token under both placements."""
    told, width = given["turns"], given["T"]
    batch = make_batch(
        mask=torch.tensor([[float(t <= one["sep"][-1]) for t in range(width)] for one in told], dtype=torch.float64),
        group=torch.arange(len(told)),
        reward=torch.tensor([sum(one["interm"]) for one in told], dtype=torch.float64),
        correct=torch.tensor([one["final"] for one in told], dtype=torch.float64),
        turn_reward=pad([one["interm"] for one in told], torch.float64),
        turn_end=pad([one["sep"] for one in told], torch.long, -1),
    )
    most = {one["max_total"] for one in told}.pop()
    found = {}
    for placement in ("dense", "sparse"):
        recipe = multiturn_recipe(placement=placement, most=most, kl_coef=0.0)  # type: ignore[arg-type]
        found[f"token_reward_{placement}"] = token_rewards(shaped(recipe, batch))
    return found


CASES = {"reward": _placed}
GIVEN = {"advantage": lambda given: {**given, "params": {"kl_coef": 0.0, "placement": "sparse", **given["params"]}}}
KEYS = {"returns": lambda run: run.all_rows(run.credited.returns)}
