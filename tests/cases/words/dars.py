"""What cases call things in DARS."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor

from policyopt.lens.case import Run
from policyopt.methods.sampling.dars import MoreForHard


def _pools(given: Mapping[str, Any]) -> dict[str, Any]:
    """Pools of unlike size, second stage first."""
    pools = [[*second, *first] for first, second in zip(given["stage1_reward"], given["stage2_reward"], strict=True)]
    reward = [float(r) for pool in pools for r in pool]
    group = [g for g, pool in enumerate(pools) for _ in pool]
    return {"reward": reward, "correct": reward, "group": group, "params": given.get("params") or {}}


def _pooled(run: Run, x: Tensor) -> list[list[float]]:
    """A number of each row, pool by pool; a pool may be empty."""
    return [x[run.batch.group == g].tolist() for g in range(len(run.asked["stage1_reward"]))]


def _advantage(run: Run) -> list[list[float]]:
    return _pooled(run, run.all_rows(run.credited.advantage)[:, 0])


def _extra(run: Run, target: Literal["equal", "hardness"], scaled: bool = False) -> list[int]:
    """How many more responses prompts of some accuracies get."""
    rollout: MoreForHard = run.recipe.source  # type: ignore[assignment]
    return [dataclasses.replace(rollout, target=target, scaled=scaled).extra(a) for a in run.given["accuracy"]]


COLUMNS = {"accuracy": ("", "free")}
PARAMS = {"n": "group_size", "n_max": "most"}
GIVEN = {"advantage": _pools}
KEYS = {
    "kept": lambda run: [int(all(pool)) for pool in _pooled(run, run.keep)],
    "advantage": _advantage,
    "cumulative_abs_advantage": lambda run: [sum(map(abs, pool)) for pool in _advantage(run)],
    "ET": lambda run: _extra(run, "equal"),
    "ET_std": lambda run: _extra(run, "equal", scaled=True),
    "HW": lambda run: _extra(run, "hardness"),
    "HW_std": lambda run: _extra(run, "hardness", scaled=True),
}
