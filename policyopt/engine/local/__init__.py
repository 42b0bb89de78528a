"""The local engine: one process, CPU or GPU, that samples, scores and updates."""

from __future__ import annotations

from typing import Any

from policyopt import cache
from policyopt.engine import Models
from policyopt.engine.local.engine import LocalEngine
from policyopt.engine.local.profile import profiled
from policyopt.engine.local.sampler import LocalSampler
from policyopt.engine.settings import Vllm
from policyopt.recipe import Recipe

__all__ = ["CAPABILITIES", "SAMPLERS", "LocalEngine", "LocalSampler", "open_engine", "profiled"]

CAPABILITIES = LocalEngine.capabilities
SAMPLERS = ("vllm",)


def open_engine(models: Models, recipe: Recipe, settings: Vllm | None = None, **optimiser: Any) -> LocalEngine:
    """The local engine on models that it loads, with vLLM to draw where its ``settings`` are given. What models that do not
    move think of given texts stays in the user's cache. Raises :class:`~policyopt.errors.UserError` where a model cannot
    be used, or vLLM cannot."""
    if settings is not None:
        from policyopt.engine.vllm import open_sampler

        optimiser["sampler"] = open_sampler(settings, recipe)
    policy, roles = models.load()
    return LocalEngine(policy, recipe, roles, keep=cache.folder() / "given", **optimiser)
