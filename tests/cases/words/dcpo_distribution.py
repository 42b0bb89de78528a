"""DCPO (distribution-centric): the words of its cases."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from policyopt.methods.entropy.dcpo_distribution import LogProbAt, VirtualTemperature
from policyopt.objective import credit, token_gradients
from policyopt.recipe import Recipe
from policyopt.rows import Batch, masked
from policyopt.steering import control

COLUMNS = {"old_logits": ("old", "logits"), "entropy": ("", "free")}

PARAMS: Mapping[str, Any] = {"clip_dual": "dual"}


def _recipe(run: Any) -> Recipe:
    """The recipe of the step after the entropy of the case was measured."""
    return control(run.recipe, {"entropy": run.given["entropy"]}, {})


def _part(run: Any) -> VirtualTemperature:
    part = _recipe(run).advantage
    assert isinstance(part, VirtualTemperature)
    return part


def _credited(run: Any) -> Batch:
    return credit(_recipe(run), run.shaped)


def _result(run: Any) -> tuple[Tensor, dict[str, Tensor]]:
    return token_gradients(_recipe(run), _credited(run), {"logp": run.batch.logp})


KEYS: Mapping[str, Callable[[Any], Any]] = {
    "temperature": lambda run: _part(run).temperature,
    "old_logp": lambda run: run.batch.old_logp,
    "old_logp_temperature": lambda run: masked(run.batch.fixed(LogProbAt(_part(run).temperature)), run.batch.mask),
    "target_ratio": lambda run: _part(run).ratio(run.batch),
    "alpha": lambda run: _part(run).strength(run.shaped),
    "advantage": lambda run: _credited(run).advantage,
    "loss": lambda run: _result(run)[0],
    "dloss_dlogp": lambda run: _result(run)[1]["logp"],
}
