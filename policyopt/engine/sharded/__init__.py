"""Trainer ranks that share a model (FSDP2): :class:`~policyopt.engine.sharded.engine.ShardedEngine` drives a
:class:`~policyopt.engine.sharded.crew.Crew` of them, such as the processes of torchrun."""

from __future__ import annotations

from typing import Any

from policyopt.engine import Models
from policyopt.engine.sharded.engine import ShardedEngine
from policyopt.recipe import Recipe

__all__ = ["CAPABILITIES", "ShardedEngine", "open_engine"]

CAPABILITIES = ShardedEngine.capabilities


def open_engine(models: Models, recipe: Recipe, settings: None = None, **optimiser: Any) -> ShardedEngine:
    """The engine on the processes that a launcher has started. Raises :class:`~policyopt.errors.UserError` where a model
    cannot be used or spread over them."""
    from policyopt.engine.sharded.launch import crew

    return ShardedEngine(crew(), models, recipe, **optimiser)
