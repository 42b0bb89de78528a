"""The local engine: one process, CPU or GPU, that samples, scores and updates."""

from __future__ import annotations

from typing import Any

from policyopt.engine import Models
from policyopt.engine.local.engine import LocalEngine
from policyopt.engine.local.sampler import LocalSampler
from policyopt.recipe import Recipe

__all__ = ["CAPABILITIES", "LocalEngine", "LocalSampler", "open_engine"]

CAPABILITIES = LocalEngine.capabilities


def open_engine(models: Models, recipe: Recipe, settings: None = None, **optimiser: Any) -> LocalEngine:
    """The local engine on models that it loads. Raises :class:`~policyopt.errors.UserError` where one cannot be used."""
    policy = models.policy.load()
    return LocalEngine(policy, recipe, {name: model.load() for name, model in models.roles.items()}, **optimiser)
