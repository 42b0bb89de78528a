"""What cases call things in GiGPO."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policyopt.methods.agents.gigpo import GroupInGroup

from ._episodes import episodes, ragged


def _advantage(given: Mapping[str, Any]) -> dict[str, Any]:
    params, batch = given["params"], episodes(given["trajectories"])
    scale = {"mean_std_norm": "std", "mean_norm": "none"}[params["mode"]]
    made = GroupInGroup(omega=params["omega"], gamma=params["gamma"], scale=scale)
    turns = made.of_episodes(batch)[:, None] + made.omega * made.of_turns(batch)
    return {
        "episode_advantage": made.of_episodes(batch),
        "step_return": ragged(batch, made.returns(batch)),
        "step_advantage": ragged(batch, made.of_turns(batch)),
        "advantage": ragged(batch, turns),
    }


CASES = {"advantage": _advantage}
