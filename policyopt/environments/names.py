"""Environments by name: worlds of the library, and what other packages call an environment, by a prefix."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from policyopt.environments.objects import ObjectWorld, ToolWorld
from policyopt.environments.routed import Routed
from policyopt.environments.tools import tool_of
from policyopt.environments.world import Environment
from policyopt.errors import UserError, nearest

Make = Callable[[], Environment]
"""Makes the environment of an episode."""

KINDS: Mapping[str, str] = {
    "gymnasium": "policyopt.environments.gymnasium",
    "openenv": "policyopt.environments.openenv",
    "verifiers": "policyopt.environments.verifiers",
    "mcp": "policyopt.environments.mcp",
    "agent": "policyopt.environments.agent",
    "textworld": "policyopt.environments.textworld",
}
"""Prefixes, and the module whose ``maker(rest, options)`` opens what stands behind them."""

_PYTHON: Mapping[str, Any] = {"True": True, "False": False, "None": None}
"""Values of options as somebody who writes Python writes them on a line; as text all three would be true."""

FORMS = (
    "my_env.py:Name (an Environment, an object with tools, a Gymnasium environment, a list of functions), gymnasium:ID, "
    "openenv:URL, verifiers:ID, mcp:URL or mcp:COMMAND, agent:my_agent.py:run"
)


def prefixed(name: str) -> tuple[str, str] | None:
    """The prefix of a name, and what stands behind it; ``None`` for a name without one."""
    kind, colon, rest = name.partition(":")
    return (kind, rest) if colon and kind in KINDS else None


def maker(name: str, options: Mapping[str, Any], lookup: Callable[[str], Any]) -> Make:
    """What makes the environments of a name; ``lookup`` finds code of the user's own.

    Raises :class:`~policyopt.errors.UserError` for a name that is none, a package that is not installed, and options that it does
    not take.
    """
    from policyopt.environments.worlds import WORLDS

    options = {
        option: _PYTHON.get(value, value) if isinstance(value, str) else value for option, value in options.items()
    }
    if (found := prefixed(name)) is not None:
        kind, rest = found
        opened: Make = importlib.import_module(KINDS[kind]).maker(rest, dict(options), lookup)
        return opened
    if name in WORLDS:
        return made_with(WORLDS[name], options, name)
    if ":" not in name:
        raise UserError(f"no environment is called {name!r}; {nearest(name, list(WORLDS))}; one of your own is {FORMS}")
    given = options.pop("reward_funcs", ())
    rewards = [lookup(n) if isinstance(n, str) else n for n in (given.split(",") if isinstance(given, str) else given)]
    return adapted(lookup(name), options, name, rewards)


def adapted(found: Any, options: Mapping[str, Any], name: str, rewards: Sequence[Callable[..., Any]] = ()) -> Make:
    """What makes environments from something of the user's own: an :class:`~policyopt.environments.world.Environment`, a Gymnasium
    environment, any other class or function that makes an object with tools, several functions, or a mapping of names to such
    things, of which a row names one in its column ``environment``; ``rewards`` say at the end what objects are worth."""
    if isinstance(found, Mapping):
        makes = {key: adapted(value, options, f"{name}[{key!r}]", rewards) for key, value in found.items()}
        return lambda: Routed(makes)
    if isinstance(found, list | tuple):
        if options:
            raise UserError(f"--env {name} is a list of functions, which takes no options: leave --env-options out")
        tools = [tool_of(function) for function in found]
        return lambda: ToolWorld(tools)
    if not callable(found):
        raise UserError(
            f"--env {name} is {type(found).__name__}: expected a class, a function that makes an environment, or a list of functions"
        )
    make = made_with(found, options, name)

    def opened() -> Environment:
        return as_environment(make(), rewards)

    return opened


def as_environment(made: Any, rewards: Sequence[Callable[..., Any]] = ()) -> Environment:
    """An object as an environment, by what it is."""
    if isinstance(made, Environment):
        return made
    if hasattr(made, "action_space") and hasattr(made, "reset") and hasattr(made, "step"):
        from policyopt.environments.gymnasium import GymWorld

        return GymWorld(made)
    return ObjectWorld(made, rewards)


def made_with(make: Callable[..., Any], options: Mapping[str, Any], name: str) -> Callable[[], Any]:
    """A class or function with its options. Raises :class:`~policyopt.errors.UserError` for one that it does not take."""
    try:
        parameters = inspect.signature(make).parameters
    except (TypeError, ValueError):  # some extension types do not say
        parameters = {}  # type: ignore[assignment]
    named = {p for p, x in parameters.items() if x.kind in (x.POSITIONAL_OR_KEYWORD, x.KEYWORD_ONLY)}
    if not any(x.kind is x.VAR_KEYWORD for x in parameters.values()):
        for option in options:
            if option not in named:
                raise UserError(f"--env-options {option}: {name} is made without it; {nearest(option, sorted(named))}")
    return lambda: make(**options)
