"""What the cases of RTO call things."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policyopt.parts.advantage.gae import token_rewards


def _unwhitened(given: Mapping[str, Any]) -> dict[str, Any]:
    return {**given, "params": {**given["params"], "advantage.whiten": False}}


GIVEN = {"advantage": _unwhitened}
COLUMNS = {
    "logp": ("old_logp", "token"),
    "dpo_logp": ("logp_of[dpo]", "token"),
    "value": ("old_value", "token"),
}
PARAMS = {"clip": "token_clip", "rm_clip": "reward_clip"}
KEYS = {
    "dpo_token_reward": lambda run: run.recipe.shape[0].dense(run.batch),
    "token_reward": lambda run: token_rewards(run.shaped),
    "return": lambda run: run.credited.returns,
}
