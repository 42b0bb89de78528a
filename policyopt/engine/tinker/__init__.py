"""The engine of a Tinker server: hosted, SkyRL's, this library's own (``policyopt serve``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from policyopt.engine import Models
from policyopt.engine.settings import Server
from policyopt.recipe import Recipe

if TYPE_CHECKING:
    from policyopt.engine.tinker.engine import TinkerEngine

__all__ = ["CAPABILITIES", "open_engine"]

CAPABILITIES = frozenset({"forced tokens", "stop sequences", "resume", "scoring", "role sampling", "roles"})
"""What the protocol serves; see :data:`policyopt.capability.CAPABILITIES`."""


def open_engine(models: Models, recipe: Recipe, settings: Server | None = None, **optimiser: Any) -> TinkerEngine:
    """The engine on the server that the settings name. Raises :class:`~policyopt.errors.UserError` where it cannot be used."""
    from policyopt.engine.tinker.engine import TinkerEngine
    from policyopt.engine.tinker.link import Link

    return TinkerEngine(Link((settings or Server()).base_url), models, recipe, **optimiser)
