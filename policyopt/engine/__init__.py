"""Engines: what runs the models. :mod:`policyopt.engine.protocol` says what one is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from policyopt.engine.protocol import Engine, EngineSampler
    from policyopt.models.load import Policy
    from policyopt.recipe import Recipe


def check_engine(recipe: Recipe) -> None:
    """Raises :class:`~policyopt.errors.UserError` where a recipe asks for what the engine cannot do, before any model is
    loaded."""
    from policyopt.capability import refuse_missing
    from policyopt.engine.local import LocalEngine

    refuse_missing(recipe.name, recipe.asks, LocalEngine.capabilities, "local")


def make_engine(policy: Policy, recipe: Recipe, roles: Mapping[str, Policy] | None = None, **settings: Any) -> Engine:
    """The local engine on models that are loaded; ``settings`` are those of
    :class:`~policyopt.engine.local.engine.LocalEngine`.

    Raises :class:`~policyopt.errors.UserError` where the recipe asks for what the engine cannot do, or for a role that
    nobody fills.
    """
    from policyopt.engine.local import LocalEngine

    check_engine(recipe)
    return LocalEngine(policy, recipe, roles, **settings)


def make_sampler(policy: Policy) -> EngineSampler:
    """The local sampler of a model that is loaded."""
    from policyopt.engine.local import LocalSampler

    return LocalSampler.of(policy)
