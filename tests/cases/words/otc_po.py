"""What cases call things in OTC-PO."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from policyopt.methods.agents.otc_po import FewestCalls, ToolProductivity
from policyopt.rows import Batch, make_batch


def _batch(
    calls: list[float], group: list[int], reward: list[float], correct: list[float], before: list[float]
) -> Batch:
    columns = {"component[tool_calls]": calls, "reward": reward, "correct": correct}
    return make_batch(
        mask=torch.ones(len(calls), 1, dtype=torch.float64), group=torch.tensor(group),
        history=torch.tensor(before, dtype=torch.float64)[:, None],
        **{name: torch.tensor(x, dtype=torch.float64) for name, x in columns.items()},
    )  # fmt: skip


def _reward(given: Mapping[str, Any]) -> dict[str, Any]:
    """The reward of some rows, and what is remembered of their prompts."""
    how = {"smoothing": float(given["params"]["c"]), "alpha": given["params"]["alpha"]}
    before = [float(given["best_calls_before"].get(str(g), math.nan)) for g in given["group"]]
    batch = _batch(given["tool_calls"], given["group"], given["base_reward"], given["correct"], before)
    part, kept = ToolProductivity(**how), FewestCalls()(batch)[:, 0].tolist()
    solved = {str(g): int(n) for g, n in zip(given["group"], kept, strict=True) if n >= 0}
    factor = part.factor(batch).tolist()
    known = [x if str(g) in solved else None for g, x in zip(given["group"], factor, strict=True)]
    calls = given.get("ppo_calls", [])
    alone = _batch(calls, [0] * len(calls), [1.0] * len(calls), [1.0] * len(calls), [math.nan] * len(calls))
    plain = ToolProductivity(best="none", **how)
    return {"best_calls": solved, "r_tool": known, "reward": part(batch).reward, "r_tool_ppo": plain.factor(alone)}


CASES = {"reward": _reward}
