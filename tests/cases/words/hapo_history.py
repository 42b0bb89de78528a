"""What cases call things in HAPO, history-aware."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from policyopt.methods.length.hapo_history import hapo_history
from policyopt.objective import shaped
from policyopt.rows import make_batch

_CALLED = {"type": "curve", "mode": "record"}


def _reward(given: Mapping[str, Any]) -> dict[str, Any]:
    """The rewards of a batch, and what is remembered of its prompts after it."""
    recipe = hapo_history(**{_CALLED.get(name, name): x for name, x in given["params"].items()})
    history = [
        (math.nan if (h := given["history"][str(g)]) is None else float(h), float(given["history_count"][str(g)]))
        for g in given["group"]
    ]
    batch = make_batch(
        mask=torch.ones(len(history), 1, dtype=torch.float64),
        group=torch.tensor(given["group"]),
        correct=torch.tensor(given["correct"], dtype=torch.float64),
        reward=torch.zeros(len(history), dtype=torch.float64),
        true_length=torch.tensor(given["length"], dtype=torch.float64),
        history=torch.tensor(history, dtype=torch.float64),
    )
    assert recipe.memory is not None
    reward, after = shaped(recipe, batch).reward, dict(zip(given["group"], recipe.memory(batch).tolist(), strict=True))
    return {
        "length_reward": reward - batch.correct,
        "reward": reward,
        "new_history": {str(g): None if math.isnan(h) else h for g, (h, _) in after.items()},
        "new_history_count": {str(g): n for g, (_, n) in after.items()},
    }


CASES = {"reward": _reward}
