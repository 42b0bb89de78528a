"""The environments that a file has: classes, objects with tools, lists of functions."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from policyopt.environments.names import Make, adapted
from policyopt.environments.world import Environment
from policyopt.part import Part


def environments_in(module: ModuleType) -> Iterator[tuple[str, Make]]:
    """The environments that a module defines, by their names there, and what makes them."""
    for name, x in vars(module).items():
        if not name.startswith("_") and is_environment(x) and _home(x) == module.__name__:
            yield name, adapted(x, {}, name)


def _home(x: Any) -> str:
    """The module that an environment is of."""
    return str(getattr(x[0] if isinstance(x, list | tuple) else x, "__module__", ""))


def is_environment(x: Any) -> bool:
    """Whether something is an environment: a class of :class:`~policyopt.environments.world.Environment`, of Gymnasium's contract or of TRL's
    (``reset``, and tools or ``step``), or a list of functions."""
    if isinstance(x, list | tuple):
        return bool(x) and all(inspect.isfunction(f) for f in x)
    if not isinstance(x, type) or issubclass(x, Part):
        return False
    if issubclass(x, Environment):
        return not inspect.isabstract(x) and x.step is not Environment.step
    return inspect.isfunction(getattr(x, "reset", None)) or inspect.isfunction(getattr(x, "get_reward", None))
