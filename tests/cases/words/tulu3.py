"""What cases call things in Tulu 3."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from policyopt.lens.case import Run
from policyopt.methods.judge.tulu3 import dpo_loss, implicit_reward
from policyopt.registry import get_method

HERE = Path(__file__).parent


def _credit(given: Mapping[str, Any]) -> dict[str, Any]:
    """A batch in which ``ended`` says who is not truncated."""
    truncated = [1 - e for e in given["ended"]]
    columns = {name: x for name, x in given.items() if name != "ended"} | {"truncated": truncated}
    run = Run(get_method("tulu3"), "other", columns, HERE)
    return {"score": run.shaped.reward} | {
        key: run.value(key, given["mask"]) for key in ("token_reward", "return", "advantage")
    }


def preference(given: Mapping[str, Any]) -> dict[str, Any]:
    """The loss of each pair, its mean, and the gradient of the mean."""
    params = given["params"]
    column = {k: torch.tensor(x, dtype=torch.float64) for k, x in given.items() if k != "params"}
    logp: dict[str, Tensor] = {side: column[f"{side}_logp"].requires_grad_() for side in ("chosen", "rejected")}
    with torch.enable_grad():
        chosen, rejected = (
            implicit_reward(
                x, column[f"ref_{side}_logp"], column[f"{side}_mask"], length_normalised=params["length_normalised"]
            )
            for side, x in logp.items()
        )
        loss = dpo_loss(chosen, rejected, params["beta"])
        found = torch.autograd.grad(loss.mean(), list(logp.values()))
    gradients = {f"dloss_d{side}_logp": g for side, g in zip(logp, found, strict=True)}
    return {"loss": float(loss.mean()), "loss_per_pair": loss.detach(), **gradients}


CASES = {"advantage": _credit, "preference_loss": preference}
