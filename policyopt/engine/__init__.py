"""Engines: what runs the models. :mod:`policyopt.engine.protocol` says what one is."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from policyopt.errors import UserError

if TYPE_CHECKING:
    from policyopt.engine.protocol import Engine, EngineSampler
    from policyopt.models.load import Policy
    from policyopt.recipe import Recipe

ENGINES: Mapping[str, str] = {
    "local": "policyopt.engine.local",
    "ray": "policyopt.engine.ray",
    "sharded": "policyopt.engine.sharded",
    "tinker": "policyopt.engine.tinker",
}
"""The module of each engine. It has ``CAPABILITIES``, and ``open_engine(models, recipe, settings, **optimiser)``; it needs
no package beyond those that are always there until that is called. ``SAMPLERS`` names what can draw for it beside itself."""

SAMPLERS: Mapping[str, str] = {"vllm": "policyopt.engine.vllm"}
"""The module of each sampler beyond an engine's own. It has ``lacks(recipe)``, the capabilities that an engine loses by it."""


@dataclass(frozen=True)
class Model:
    """A model by its name, with how it is loaded; it can be sent to another process."""

    name: str
    """A folder, a hub id, or a name that carries a model."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of :func:`policyopt.models.load.load_policy`."""

    def on(self, device: str) -> Model:
        """The same on a device."""
        return replace(self, options={**self.options, "device": device})

    def load(self) -> Policy:
        """The model itself. Raises :class:`~policyopt.errors.UserError` where it cannot be used."""
        from policyopt.models.load import load_policy

        return load_policy(self.name, **self.options)


@dataclass(frozen=True)
class Models:
    """The models of a run that nobody has loaded yet."""

    policy: Model
    roles: Mapping[str, Model] = field(default_factory=dict)
    """Those that are named for the roles that the recipe reads; "reference" and "previous" may be missing."""

    def placed(self, place: Callable[[Model], Model]) -> Models:
        """The same, each where ``place`` puts it."""
        return Models(place(self.policy), {name: place(model) for name, model in self.roles.items()})

    def load(self) -> tuple[Policy, dict[str, Policy]]:
        """The models themselves: the policy, and the roles by name. Raises :class:`~policyopt.errors.UserError` where one
        cannot be used."""
        return self.policy.load(), {name: model.load() for name, model in self.roles.items()}


def check_engine(recipe: Recipe, engine: str = "local", sampler: str = "own") -> None:
    """Raises :class:`~policyopt.errors.UserError` where a recipe asks for what an engine cannot do with a sampler, before any
    model is loaded."""
    from policyopt.capability import refuse_missing

    module, lacks = _module(engine), frozenset[str]()
    if sampler != "own":
        if sampler not in getattr(module, "SAMPLERS", ()):
            raise UserError(f"--sampler {sampler}: the engine {engine!r} draws by itself; leave it out")
        lacks = importlib.import_module(SAMPLERS[sampler]).lacks(recipe)
    name = engine if sampler == "own" else f"{engine} with --sampler {sampler}"
    refuse_missing(recipe.name, recipe.asks, capabilities(engine) - lacks, name)


def capabilities(engine: str) -> frozenset[str]:
    """What an engine can do, of :data:`policyopt.capability.CAPABILITIES`; nothing is opened for it. Raises
    :class:`~policyopt.errors.UserError` for an engine that there is not."""
    found: frozenset[str] = _module(engine).CAPABILITIES
    return found


def open_engine(engine: str, models: Models, recipe: Recipe, settings: Mapping[str, Any], **optimiser: Any) -> Engine:
    """An engine of a kind; ``settings`` holds those of :mod:`policyopt.engine.settings` by engine, ``optimiser`` the keywords
    of :class:`~policyopt.engine.local.engine.LocalEngine`.

    Raises :class:`~policyopt.errors.UserError` where the recipe asks for what the engine cannot do, a model cannot be
    used, or the engine cannot be reached.
    """
    check_engine(recipe, engine)
    opened: Engine = _module(engine).open_engine(models, recipe, settings.get(engine), **optimiser)
    return opened


def check_profile(engine: str) -> None:
    """Raises :class:`~policyopt.errors.UserError` for an engine that cannot say where its time goes."""
    if not hasattr(_module(engine), "profiled"):
        raise UserError(
            f"--profile: the models of the engine {engine!r} are in other processes, which it cannot see into: leave it out, "
            "or profile a run in one process (--engine local, without torchrun)"
        )


def profiled(engine: str, opened: Engine, file: Path) -> AbstractContextManager[None]:
    """Write into a file where the time and the memory of an engine of a kind go in a block."""
    found: AbstractContextManager[None] = _module(engine).profiled(opened, file)
    return found


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


def _module(engine: str) -> Any:
    if engine not in ENGINES:
        raise UserError(f"--engine {engine}: there is no such engine; known: {', '.join(ENGINES)}")
    return importlib.import_module(ENGINES[engine])
