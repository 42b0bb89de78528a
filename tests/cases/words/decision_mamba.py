"""What the cases of Decision Mamba call things: actions are numbers there, so that a squared error stands for the cross-entropy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.nn.functional import mse_loss, smooth_l1_loss

from policyopt.methods.distillation.decision_mamba import decision_mamba

from ._scheduled import scheduled


def _loss(given: Mapping[str, Any]) -> dict[str, Any]:
    params = given["params"]
    whole = decision_mamba(alpha=params["alpha_T"], cap=params["cap"], iterations=params["iters"], every=1)
    recipe = scheduled(whole, given["iteration"])
    own, past = (recipe.get(f"regularizers.{name}.coef") for name in ("Likelihood", "DistributionLoss"))

    def tensor(name: str) -> torch.Tensor:
        return torch.tensor(given[name], dtype=torch.float64)

    target = own * tensor("action") + past * tensor("past_action_pred")
    with torch.enable_grad():
        said = tensor("action_pred").requires_grad_()
        loss = params["w_action"] * mse_loss(said, target)
        for name, weight in (("next_state", "w_state"), ("next_rtg", "w_rtg")):
            if name in given and params.get(weight):
                loss = loss + params[weight] * smooth_l1_loss(tensor(f"{name}_pred"), tensor(name))
        [gradient] = torch.autograd.grad(loss, said)
    return {"beta": past, "target": target, "loss": float(loss), "dloss_daction_pred": gradient}


CASES = {"loss": _loss}
