"""What cases call things in THOR."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from policyopt.methods.agents.thor import SoundTrajectories
from policyopt.rows import make_batch


def _rows(given: Mapping[str, Any]) -> dict[str, Any]:
    """Rows whose prefix and tool output are no tokens of the policy."""
    mask = [
        [float(m and not tool and t >= start) for t, (m, tool) in enumerate(zip(row, tools, strict=True))]
        for row, tools, start in zip(given["mask"], given["tool_token"], given["prefix_len"], strict=True)
    ]
    reward = [
        ran if step else right
        for step, right, ran in zip(given["step_level"], given["answer_correct"], given["execution_pass"], strict=True)
    ]
    same = {name: given[name] for name in ("group", "old_logp", "logp", "params")}
    return {**same, "mask": mask, "reward": reward, "origin": given["step_level"]}


def _kept(given: Mapping[str, Any]) -> dict[str, Any]:
    """Episodes of groups that stand one behind the other."""
    params, n = given["params"], len(given["length"])
    columns = {
        "component[tool_errors]": [1.0 - ran for ran in given["execution_all_pass"]],
        "true_length": given["length"], "formatted": given["boxed_at_end"], "reward": [0.0] * n,
    }  # fmt: skip
    batch = make_batch(
        mask=torch.ones(n, 1, dtype=torch.float64), group=torch.arange(n) // params["group_size"],
        **{name: torch.tensor(x, dtype=torch.float64) for name, x in columns.items()},
    )  # fmt: skip
    part = SoundTrajectories(shortest=params["min_length"], share=params["min_kept_ratio"], differ=False)
    return {"keep": part(batch).double()}


GIVEN = {"loss": _rows}
CASES = {"mask": _kept}
PARAMS = {"clip_dual": "dual"}
KEYS = {"loss_mask": lambda run: run.batch.mask}
