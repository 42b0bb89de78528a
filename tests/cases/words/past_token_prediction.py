"""What cases call things in past-token prediction, whose cases are about actions that are vectors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from policyopt.methods.agents.past_token_prediction import chunk_loss, most_agreeing


def _loss(given: Mapping[str, Any]) -> dict[str, Any]:
    params = given["params"]
    pred, target = (torch.tensor(given[name], dtype=torch.float64) for name in ("pred", "target"))
    past = params["n_past"]
    with torch.enable_grad():
        pred.requires_grad_()
        error = ((pred - target) ** 2).mean(-1)
        loss = chunk_loss(error, past, params["w_past"])
        (gradient,) = torch.autograd.grad(loss, pred)
    return {
        "loss": loss.detach(),
        "past_mse": error[:, :past].mean().detach(),
        "future_mse": chunk_loss(error, past, 0.0).detach(),
        "dloss_dpred": gradient,
    }


def _verified(given: Mapping[str, Any]) -> dict[str, Any]:
    candidates, done = (torch.tensor(given[name], dtype=torch.float64) for name in ("candidates", "executed"))
    score = ((candidates[:, : len(done)] - done) ** 2).sum((1, 2))
    chosen = most_agreeing(score.tolist())
    return {"score": score, "chosen": chosen, "future": candidates[chosen, len(done) :]}


CASES = {"loss": _loss, "sampler": _verified}
