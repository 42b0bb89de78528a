"""What cases call things in VSC-RL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from policyopt.lens.case import without_critic
from policyopt.methods.agents.vsc_rl import HardFilter, segments, vsc_rl
from policyopt.objective import token_gradients
from policyopt.rows import make_batch


def _loss(given: Mapping[str, Any]) -> dict[str, Any]:
    """Turns, each a row, with two critics of which the smaller one counts."""
    names = ("v1", "v2", "next_v1", "next_v2", "reward", "mc_return", "mask", "logp")
    v1, v2, next1, next2, reward, returns, mask, logp = (torch.tensor(given[n], dtype=torch.float64) for n in names)
    part = HardFilter(margin=given["params"]["margin"])
    gain = part.gain(torch.minimum(v1, v2), torch.minimum(next1, next2), reward, returns)
    weight = (gain > 0).double()
    batch = make_batch(mask=mask, reward=reward, advantage=weight[:, None] * mask)
    loss, found = token_gradients(without_critic(vsc_rl()), batch, {"logp": logp})
    return {"clipped_advantage": gain, "weight": weight, "loss": loss, "dloss_dlogp": found["logp"]}


def _split(given: Mapping[str, Any]) -> dict[str, Any]:
    reward = torch.tensor([given["step_reward"]], dtype=torch.float64)
    number, reached, left = segments(reward, torch.ones_like(reward, dtype=torch.bool))
    returns = HardFilter(gamma=given["params"]["gamma"]).returns(reached, left)[0].tolist()
    found = []
    for s in dict.fromkeys(number[0].tolist()):
        steps = [k for k, n in enumerate(number[0].tolist()) if n == s]
        success = int(reached[0, steps[0]])
        found.append({"steps": steps, "success": success, "mc_return": [returns[k] for k in steps]})
    return {"segments": found}


CASES = {"loss": _loss, "value_target": _split}
