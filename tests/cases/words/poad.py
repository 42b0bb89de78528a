"""What cases call things in POAD."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from policyopt.methods.agents.poad import ActionGAE, ActionValueLoss
from policyopt.rows import make_batch


def _advantage(given: Mapping[str, Any]) -> dict[str, Any]:
    """One episode, with a token of the environment between two actions."""
    values, mask, ends = [], [], []
    for action in given["token_values"]:
        values += [*action, 9.0]
        mask += [1.0] * len(action) + [0.0]
        ends.append(len(mask) - 2)
    rewards, gamma, lam = given["step_reward"], given["params"]["gamma"], given["params"]["lambda"]
    if given["done"] != [0] * (len(ends) - 1) + [1]:
        raise ValueError("an episode that ends before its last step, or not at all")
    batch = make_batch(
        mask=torch.tensor([mask], dtype=torch.float64),
        old_value=torch.tensor([values], dtype=torch.float64),
        group=torch.zeros(1, dtype=torch.long),
        reward=torch.tensor([sum(rewards)], dtype=torch.float64),
        truncated=torch.zeros(1, dtype=torch.float64),
        turn_reward=torch.tensor([rewards], dtype=torch.float64),
        turn_end=torch.tensor([ends]),
    )

    def actions(x: torch.Tensor) -> list[list[float]]:
        return [
            x[0, end + 1 - len(action) : end + 1].tolist()
            for action, end in zip(given["token_values"], ends, strict=True)
        ]

    return {
        "advantage": actions(ActionGAE(gamma=gamma, lam=lam, whiten=False)(batch)),
        "value_target": actions(ActionValueLoss(gamma=gamma, lam=lam).target(batch)),
    }


CASES = {"advantage": _advantage}
