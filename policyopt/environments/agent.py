"""Agents of somebody else's: a function that talks to a language model at an address, as it does without this library."""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal

from policyopt.environments.chat import MODEL
from policyopt.environments.endpoint import loop_of
from policyopt.environments.names import Make
from policyopt.environments.outside import Overdue
from policyopt.environments.world import Environment, Observation
from policyopt.errors import UserError, nearest

FORM = "agent:my_agent.py:run"


class Agent(Environment):
    """A function that is called once for an episode, and asks the policy by the chat completions protocol as often as it likes.

    It takes of these what it has arguments for, by their names: ``base_url``, ``api_key`` and ``model``, with which its client finds
    the policy; ``row``, what the task's row brings (its columns, ``prompt`` as messages and ``answer``); ``seed``; and each column of
    the row by its own name. It returns what the episode was worth: a number, an object ``{"reward": ..., "correct": ...}`` whose other
    numbers are logged, or ``None`` where the task's judge says it.

    Args:
        function: The agent, or a coroutine function.
        name: What it is called in messages.
        turns: The most requests of an episode.
        temperature: Whose temperature answers are drawn at: that of the "run", or where a request names one that of the "agent".
    """

    def __init__(
        self, function: Callable[..., Any], name: str, turns: int = 32, temperature: Literal["run", "agent"] = "run"
    ) -> None:
        self.function, self.name, self.turns, self.own_heat = function, name, turns, temperature == "agent"
        try:
            self._takes = inspect.signature(function).parameters
        except (TypeError, ValueError):
            raise UserError(f"--env {name} does not say which arguments it takes: wrap it in a function") from None

    async def run(self, seconds: float, *, base_url: str, api_key: str, seed: int, row: Mapping[str, Any]) -> Any:
        """What the agent returns. Code that waits runs in the thread of its episode, coroutines run together in an event loop of the agents,
        so that nothing of them stands in the way of the sampler.

        Raises :class:`~policyopt.environments.outside.Overdue`, :class:`~policyopt.errors.UserError` for an argument that nothing fills,
        and whatever the agent raises.
        """
        reserved = {"base_url": base_url, "api_key": api_key, "model": MODEL, "seed": seed, "row": dict(row)}
        given = self.arguments({**row, **reserved})

        async def called() -> Any:
            if inspect.iscoroutinefunction(self.function):
                return await _together(self.function(**given))
            found = await self.outside(_kept, self.function, given)
            return await _together(found[0]) if inspect.isawaitable(found[0]) else found[0]

        try:
            async with asyncio.timeout(seconds) as limit:
                return await called()
        except TimeoutError:
            if not limit.expired():  # its own
                raise
            raise Overdue(f"the agent took longer than {seconds:g} s") from None

    @property
    def needs(self) -> list[str]:
        """The arguments that it has to be given, beside those that the library gives to all."""
        named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        wanted = [n for n, p in self._takes.items() if p.kind in named and p.default is p.empty]
        return [n for n in wanted if n not in ("base_url", "api_key", "model", "seed", "row")]

    def arguments(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """What the function takes of what there is. Raises :class:`~policyopt.errors.UserError` for an argument that nothing fills."""
        kinds = [p.kind for p in self._takes.values()]
        if inspect.Parameter.VAR_KEYWORD in kinds:
            return dict(given)
        for parameter in self._takes.values():
            if parameter.kind is parameter.POSITIONAL_ONLY:
                raise UserError(f"--env {self.name}: arguments are given by name: take the / out of its signature")
            missing = parameter.default is parameter.empty and parameter.kind is not parameter.VAR_POSITIONAL
            if missing and parameter.name not in given:
                raise UserError(
                    f"--env {self.name} takes {parameter.name!r}, which no row of the task brings; "
                    f"{nearest(parameter.name, given)}"
                )
        return {name: given[name] for name in self._takes if name in given}


def _kept(function: Callable[..., Any], given: Mapping[str, Any]) -> tuple[Any]:
    """What a function returns, not to be awaited here."""
    return (function(**given),)


async def _together(found: Awaitable[Any]) -> Any:
    """What an agent's coroutine gives, awaited in the loop of the agents."""

    async def guarded() -> Any:
        try:
            return await found
        except (SystemExit, KeyboardInterrupt) as error:  # which would end the loop of all agents
            raise RuntimeError(repr(error)) from None

    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(guarded(), loop_of("agents")))


def outcome(said: Any) -> Observation:
    """What an agent returned, as the end of an episode.

    Raises ``TypeError`` for what is none, and ``ValueError`` for a number that is not finite.
    """
    if said is None:
        return Observation(done=True)
    if isinstance(said, bool | int | float):
        said = {"reward": said}
    if not isinstance(said, Mapping):
        kind = type(said).__name__
        raise TypeError(f'the agent returned {kind}: expected a number, {{"reward": ...}}, or None for the judge')
    numbers = {str(k): float(x) for k, x in said.items() if isinstance(x, bool | int | float)}
    for name, x in numbers.items():
        if not math.isfinite(x):
            raise ValueError(f"the agent returned {name} {x}, expected a finite number")
    reward, correct = numbers.pop("reward", None), said.get("correct")
    numbers.pop("correct", None)
    told = None if correct is None else bool(correct)
    return Observation(done=True, reward=reward, correct=told, numbers=numbers, reason=str(said.get("reason", "")))


def maker(rest: str, options: Mapping[str, Any], lookup: Callable[[str], Any]) -> Make:
    """What makes the agents of ``agent:my_agent.py:run``. Raises :class:`~policyopt.errors.UserError` for what is no function, and for
    options that an agent does not take."""
    if ":" not in rest:
        raise UserError(f"--env agent:{rest} names no function: expected {FORM}")
    function = lookup(rest)
    if not callable(function) or isinstance(function, type):
        kind = "a class" if isinstance(function, type) else type(function).__name__
        raise UserError(f"--env agent:{rest} is {kind}: expected a function, such as run(base_url, row)")
    if unknown := sorted(options.keys() - {"turns", "temperature"}):
        raise UserError(f"--env-options {unknown[0]}: an agent is made without it; nearest: turns, temperature")
    turns, temperature = options.get("turns", 32), options.get("temperature", "run")
    if not isinstance(turns, int) or turns < 1:
        raise UserError(
            f"--env-options turns={turns}: expected a whole number from 1 on, the most requests of an episode"
        )
    if temperature not in ("run", "agent"):
        raise UserError(f"--env-options temperature={temperature}: expected run or agent")
    return lambda: Agent(function, f"agent:{rest}", turns, temperature)
