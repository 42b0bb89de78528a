"""What the cases of MO-GRPO call things."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from policyopt.methods.reward.mo_grpo import mo_grpo, score_regression
from policyopt.objective import credit, shaped
from policyopt.rows import make_batch


def _advantage(given: Mapping[str, Any]) -> dict[str, Any]:
    """Scores [N][K] as a component for each label; a response is one token."""
    params, score = given["params"], torch.tensor(given["label_score"], dtype=torch.float64)
    names = [f"label{k}" for k in range(score.shape[1])]
    recipe = mo_grpo(weights=tuple(zip(names, params["weights"], strict=True)))
    recipe = recipe.set("advantage.eps", params["adv_eps"]).set("advantage.ddof", params["ddof"])
    batch = make_batch(
        mask=torch.ones_like(score[:, :1]), reward=torch.zeros_like(score[:, 0]), group=torch.tensor(given["group"]),
        **{f"component[{name}]": score[:, k] for k, name in enumerate(names)},
    )  # fmt: skip
    found = credit(recipe, shaped(recipe, batch))
    return {"reward": found.reward, "advantage": found.advantage[:, 0]}


def _regression(given: Mapping[str, Any]) -> dict[str, Any]:
    predicted, label = (torch.tensor(given[name], dtype=torch.float64) for name in ("predicted", "label"))
    with torch.enable_grad():
        loss = score_regression(predicted.requires_grad_(), label)
        return {"loss": loss.detach(), "dloss_dpredicted": torch.autograd.grad(loss, predicted)[0]}


CASES = {"advantage": _advantage, "other": _regression}
