"""What cases call things in Curriculum GRPO."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from policyopt.methods.length.curriculum_length_grpo import curriculum_length_grpo
from policyopt.objective import credit, shaped
from policyopt.rows import make_batch

from ._scheduled import scheduled


def _made(params: Mapping[str, Any], step: float = 0) -> Any:
    known = {"b0" if name == "B0" else name: x for name, x in params.items() if name != "step"}
    return scheduled(curriculum_length_grpo(**known), step)


def _schedule(given: Mapping[str, Any]) -> dict[str, Any]:
    """The budget at some steps, as it is paid and as it is announced."""
    params = given["params"]
    at = [_made(params, step) for step in params["step"]]
    return {
        "budget": [r.get("shape.LengthReward.reference") for r in at],
        "budget_int": [int(r.source.announced(None)["budget"]) for r in at],
    }


def _reward(given: Mapping[str, Any]) -> dict[str, Any]:
    """The rewards of a batch at a step; each tag that is there covers the one token of a row."""
    params, n = given["params"], len(given["length"])
    recipe = _made(params, params["step"])
    batch = make_batch(
        mask=torch.ones(n, 1, dtype=torch.float64),
        group=torch.tensor(given["group"]),
        true_length=torch.tensor(given["length"], dtype=torch.float64),
        correct=torch.tensor(given["correct"], dtype=torch.float64),
        reward=torch.zeros(n, dtype=torch.float64),
        **{
            f"span[{tag}]": torch.tensor(given[f"has_{tag}"], dtype=torch.float64)[:, None]
            for tag in ("think", "answer")
        },
    )
    form = _made({**params, "lambda_f": 1.0, "lambda_c": 0.0, "lambda_l": 0.0}, params["step"])
    after = credit(recipe, shaped(recipe, batch))
    return {
        "budget": recipe.get("shape.LengthReward.reference"),
        "length_reward": recipe.get("shape.LengthReward").value(batch),
        "format_reward": shaped(form, batch).reward,
        "reward": after.reward,
        "advantage": after.advantage[:, 0],
    }


CASES = {"schedule": _schedule, "reward": _reward}
