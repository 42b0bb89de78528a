"""What cases call things in UI-R1."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from policyopt.judging.boxes import done_right
from policyopt.methods.agents.ui_r1 import DifficultyAdaptiveLength, ui_r1
from policyopt.objective import shaped
from policyopt.rows import make_batch


def _reward(given: Mapping[str, Any]) -> dict[str, Any]:
    return _lengths(given) if "length" in given else _actions(given)


def _actions(given: Mapping[str, Any]) -> dict[str, Any]:
    rows = given["rows"]
    found = [done_right(r["action"], r["point"], r["true_action"], r["true_bbox"], r["scale"]) for r in rows]
    kind, place = torch.tensor(found, dtype=torch.float64).unbind(-1)
    form = torch.tensor([r["format_ok"] for r in rows], dtype=torch.float64)
    batch = make_batch(
        mask=torch.ones(len(rows), 1, dtype=torch.float64), reward=torch.zeros_like(form), formatted=form
    )
    batch = batch.replace(**{"component[kind]": kind, "component[place]": place})
    return {"components": torch.stack([kind, place, form], -1), "reward": shaped(ui_r1(), batch).reward}


def _lengths(given: Mapping[str, Any]) -> dict[str, Any]:
    params, names = given["params"], ("reward", "length")
    reward, length = (torch.tensor(given[name], dtype=torch.float64) for name in names)
    batch = make_batch(
        mask=torch.ones(len(reward), 1, dtype=torch.float64), reward=reward, true_length=length,
        group=torch.tensor(given["group"]),
    )  # fmt: skip
    part = DifficultyAdaptiveLength(slope=-params["a"], offset=params["b"], full=params["full"])
    return {"reward": part(batch).reward}


CASES = {"reward": _reward}
