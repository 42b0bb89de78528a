"""What cases call things in RL-Struct."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from policyopt.data.structured import components, share_present
from policyopt.methods.judge.rl_struct import rl_struct
from policyopt.objective import credit, shaped
from policyopt.rows import make_batch
from policyopt.schema import member


def _reward(given: Mapping[str, Any]) -> dict[str, Any]:
    """Responses by what was found in them."""
    params = given["params"]
    required: dict[str, Any] = {key: {} for key in given["required_keys"]}
    found = [
        components(
            valid=r["valid"],
            struct=share_present(dict.fromkeys(r["keys"]), required),
            fenced=r["fenced"],
            correct=r["f1"],
            length=r["length"],
            max_length=params["max_length"],
        )
        for r in given["responses"]
    ]
    columns = {member("component", k): torch.tensor([c[k] for c in found], dtype=torch.float64) for k in found[0]}
    recipe = rl_struct(**params["weights"], group_size=max(2, len(found)))
    recipe = recipe.set("advantage.eps", params["adv_eps"]).set("advantage.ddof", params["ddof"])
    batch = make_batch(
        mask=torch.ones(len(found), 1, dtype=torch.float64),
        group=torch.tensor(given["group"]),
        reward=torch.zeros(len(found), dtype=torch.float64),
        **columns,
    )
    batch = credit(recipe, shaped(recipe, batch))
    return {"components": found, "reward": batch.reward, "advantage": batch.advantage[:, 0]}


CASES = {"reward": _reward}
