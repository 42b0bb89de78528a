"""What cases call things in prior prompt engineering."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from policyopt.judging.answers import in_blocks
from policyopt.methods.reward.ppe import ppe
from policyopt.objective import shaped
from policyopt.rows import make_batch


def _reward(given: Mapping[str, Any]) -> dict[str, Any]:
    """Judged texts, and both halves of their reward."""
    formatted = [in_blocks(text, tag) for text, tag in zip(given["completion"], given["tag"], strict=True)]
    batch = make_batch(
        mask=torch.ones(len(formatted), 1, dtype=torch.float64),
        reward=torch.zeros(len(formatted), dtype=torch.float64),
        correct=torch.tensor(given["correct"], dtype=torch.float64),
        formatted=torch.tensor(formatted, dtype=torch.float64),
    )
    recipe, nothing = ppe(**given["params"]), torch.zeros_like(batch.reward)
    return {
        "format_reward": shaped(recipe, batch.replace(correct=nothing)).reward,
        "accuracy_reward": shaped(recipe, batch.replace(formatted=nothing)).reward,
        "reward": shaped(recipe, batch).reward,
    }


CASES = {"reward": _reward}
