"""What cases call things in Words as Beacons."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from policyopt.methods.agents.words_as_beacons import OrderedSubgoals
from policyopt.parts.advantage.gae import token_rewards
from policyopt.schema import member

from ._episodes import episodes


def _reward(given: Mapping[str, Any]) -> dict[str, Any]:
    """One episode, whose subgoals are called by their numbers."""
    params, events = given["params"], given["events"]
    worth = [float(k == given["success_step"]) for k in range(len(events))]
    names = [f"g{j}" for j in range(given["num_subgoals"])]
    part = OrderedSubgoals(
        subgoals=tuple(names), alpha=params["alpha"], max_turns=params["max_steps"], pay_last=params["pay_last"]
    )
    batch = episodes([{"step_reward": worth}])
    counts = {
        member("turn_number", name): torch.tensor([[float(j in e) for e in events]], dtype=torch.float64)
        for j, name in enumerate(names)
    }
    paid = token_rewards(part(batch.replace(**counts)))[0]
    return {"reward": paid[batch.turn_end[0]]}


CASES = {"reward": _reward}
