"""The engine ``ray``: trainers and samplers in processes of a Ray cluster, one driver that owns the run."""

from __future__ import annotations

from typing import Any

from policyopt.capability import CAPABILITIES as ALL
from policyopt.engine import Models
from policyopt.engine.protocol import Engine
from policyopt.engine.settings import Cluster
from policyopt.recipe import Recipe

CAPABILITIES = frozenset(ALL) - {
    "logit processors", "temperature from logits", "routing replay", "group statistics", "gradient noise",
}  # fmt: skip
"""Not those that run a program's Python function inside of the sampler, which is another process; nor records of experts."""


def open_engine(models: Models, recipe: Recipe, settings: Cluster | None = None, **optimiser: Any) -> Engine:
    """The engine on models that its processes load. Raises :class:`~policyopt.errors.UserError` where Ray is not installed or
    cannot be reached, has too few places, or a process cannot load its model."""
    from policyopt.engine.ray.engine import RayEngine

    return RayEngine(models, recipe, settings or Cluster(), **optimiser)
