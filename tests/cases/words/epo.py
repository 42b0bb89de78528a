"""EPO: the words of its cases, which begin at token entropies and the loss of the policy."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from policyopt.methods.entropy.epo import EntropyBand, two_phases

COLUMNS = {"turn": ("turn", "row"), "entropy_history": ("", "free"), "pg_loss": ("", "free")}

PARAMS: Mapping[str, Any] = {"epoch": None}


def _phase(run: Any) -> float:
    steps = run.params.get("max_epochs")
    return two_phases(min(run.params["epoch"], steps), steps) if steps else 1.0


def _band(run: Any) -> EntropyBand:
    """The regulariser as its controllers have set it at the epoch of the case."""
    history = tuple(run.given.get("entropy_history") or ())
    return dataclasses.replace(run.part("regularizers.EntropyBand"), phase=_phase(run), history=history)


def _mean(run: Any, x: Tensor) -> Tensor:
    return (run.recipe.aggregate(run.batch) * x).sum()


def _loss(run: Any, entropy: Tensor | None = None) -> Tensor:
    batch = run.batch if entropy is None else run.batch.replace(entropy=entropy)
    return run.given.get("pg_loss", 0.0) + _mean(run, _band(run)(batch))


def _gradient(run: Any) -> Tensor:
    with torch.enable_grad():
        entropy = run.batch.entropy.clone().requires_grad_()
        return torch.autograd.grad(_loss(run, entropy), entropy)[0]


KEYS: Mapping[str, Callable[[Any], Any]] = {
    "phase_weight": _phase,
    "applied": lambda run: _band(run).applied(run.batch),
    "penalty": lambda run: _band(run).penalty(run.batch),
    "entropy_mean": lambda run: _mean(run, run.batch.entropy),
    "penalty_mean": lambda run: _mean(run, _band(run).penalty(run.batch)),
    "loss": _loss,
    "dloss_dentropy": _gradient,
}


def _schedule(given: Mapping[str, Any]) -> Mapping[str, Any]:
    steps = given["params"]["max_epochs"]
    return {"weight": [two_phases(min(epoch, steps), steps) for epoch in given["epoch"]]}


CASES = {"schedule": _schedule}
