"""What cases call things in GUI-G1."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from policyopt.judging.boxes import found_box
from policyopt.methods.agents.gui_g1 import gui_g1
from policyopt.objective import advantages, shaped
from policyopt.rows import make_batch


def _reward(given: Mapping[str, Any]) -> dict[str, Any]:
    params, boxes = given["params"], given["pred_box"]
    found = [found_box(b, given["true_box"], given["width"], given["height"]) for b in boxes]
    parts = {name: torch.tensor([f[name] for f in found], dtype=torch.float64) for name in ("hit", "iou", "size")}
    batch = make_batch(
        mask=torch.ones(len(boxes), 1, dtype=torch.float64), group=torch.tensor(given["group"]), reward=parts["hit"]
    )
    batch = batch.replace(**{f"component[{name}]": x for name, x in parts.items()})
    recipe = gui_g1(iou=params["alpha_iou"], size=params["beta_box"])
    scored = shaped(recipe, batch)
    return {
        "components": torch.stack(list(parts.values()), -1),
        "reward": scored.reward,
        "advantage": advantages(recipe, scored)[:, 0],
    }


def _weighed(given: Mapping[str, Any]) -> dict[str, Any]:
    """The weight of a prompt as a factor on its advantage."""
    weighed = [a * w for a, w in zip(given["advantage"], given["weight"], strict=True)]
    return {name: x for name, x in given.items() if name != "weight"} | {"advantage": weighed}


CASES = {"reward": _reward}
GIVEN = {"loss": _weighed}
PARAMS = {"max_tokens": "loss_norm"}
