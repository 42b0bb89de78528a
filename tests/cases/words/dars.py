"""What cases call things in DARS."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch

from policyopt.methods.sampling.dars import MoreForHard, dars
from policyopt.objective import credit, kept
from policyopt.rows import make_batch

TARGETS: dict[str, Literal["equal", "hardness"]] = {"ET": "equal", "HW": "hardness"}


def _extra(given: Mapping[str, Any]) -> dict[str, Any]:
    """Further responses by accuracy, for both targets and both kinds of advantage."""
    n, most = given["params"]["n"], given["params"]["n_max"]
    return {
        name + suffix: [
            MoreForHard(size=n, most=most, target=target, scaled=scaled).extra(a) for a in given["accuracy"]
        ]
        for name, target in TARGETS.items()
        for suffix, scaled in (("", False), ("_std", True))
    }


def _pooled(given: Mapping[str, Any]) -> dict[str, Any]:
    """Credit in pools of unlike size, second stage first."""
    pools = [[*second, *first] for first, second in zip(given["stage1_reward"], given["stage2_reward"], strict=True)]
    reward = torch.tensor([float(r) for pool in pools for r in pool], dtype=torch.float64)
    batch = make_batch(
        mask=torch.ones(len(reward), 1, dtype=torch.float64),
        group=torch.repeat_interleave(torch.arange(len(pools)), torch.tensor([len(pool) for pool in pools])),
        reward=reward,
        correct=reward,
    )
    recipe = dars(**given["params"])
    keep = kept(recipe, batch)
    advantage = torch.zeros_like(reward)
    advantage[keep] = credit(recipe, batch[keep]).advantage[:, 0]
    rows = [batch.group == g for g in range(len(pools))]
    return {
        "kept": [int(keep[mine].all()) for mine in rows],
        "advantage": [advantage[mine].tolist() for mine in rows],
        "cumulative_abs_advantage": [float(advantage[mine].abs().sum()) for mine in rows],
    }


CASES = {"schedule": _extra, "advantage": _pooled}
