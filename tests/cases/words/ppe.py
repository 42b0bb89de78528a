"""What cases call things in prior prompt engineering."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from policyopt.judging.answers import in_blocks
from policyopt.lens.case import Run
from policyopt.objective import shaped


def _judged(given: Mapping[str, Any]) -> dict[str, Any]:
    """Texts as the judge sees them."""
    formatted = [float(in_blocks(text, tag)) for text, tag in zip(given["completion"], given["tag"], strict=True)]
    return {
        "correct": [float(x) for x in given["correct"]],
        "formatted": formatted,
        "params": given.get("params") or {},
    }


def _without(run: Run, column: str) -> Tensor:
    """The reward of rows for which one half never holds."""
    return shaped(run.loss_recipe, run.batch.replace(**{column: torch.zeros_like(run.batch.reward)})).reward


GIVEN = {"reward": _judged}
KEYS = {
    "format_reward": lambda run: _without(run, "correct"),
    "accuracy_reward": lambda run: _without(run, "formatted"),
}
