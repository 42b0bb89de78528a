"""What the cases of reg-grpo call things."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from policyopt.groups import group_mean


def difficulty(reward: Tensor, group: Tensor, recent: float) -> Tensor:
    """How hard each row's prompt is, [N]: ``recent``, the mean over earlier prompts of their mean rewards, minus the
    mean of ``reward`` [N] over the row's group. Positive is harder than usual. Source: DeepVideo-R1, arXiv:2506.07464."""
    return recent - group_mean(reward, group)


PARAMS = {"beta": "kl_coef"}
KEYS = {
    "log_ratio": lambda run: run.part("surrogate").score(run.credited),
    "predicted_advantage": lambda run: run.part("surrogate").predicted(run.credited),
}


def hardness(given: Mapping[str, Any]) -> dict[str, Any]:
    """How hard one prompt is, next to the prompts of a buffer."""
    reward = torch.tensor(given["reward"], dtype=torch.float64)
    recent = [sum(rewards) / len(rewards) for rewards in given["buffer_reward"]]
    group = torch.zeros(len(reward), dtype=torch.long)
    return {"difficulty": float(difficulty(reward, group, sum(recent) / len(recent))[0])}


CASES = {"metric": hardness}
