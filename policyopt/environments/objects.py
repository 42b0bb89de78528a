"""Objects with tools: every public method with types and a docstring is a tool that the policy may call.

The contract is that of TRL's ``environment_factory``: ``reset(self, **row) -> str | None`` begins an episode, every other public
method is a tool, and ``get_reward(self) -> float``, where there is one, says at the end what the episode was worth. Plain functions are
tools without a world."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from policyopt.environments.calls import Call
from policyopt.environments.outside import Overdue
from policyopt.environments.tools import Tool, error_text, find_tool, tool_of, written
from policyopt.environments.world import Action, Environment, Observation
from policyopt.errors import UserError
from policyopt.items import Message

_OURS = frozenset({"reset", "get_reward", "close"})


class ToolWorld(Environment):
    """Tools for one episode; it ends with the first turn that calls none. Without a reward of its own, the task's judge says what it
    was worth."""

    def __init__(self, tools: Sequence[Tool], turns: int = 16) -> None:
        self.tools, self.turns = tuple(tools), turns

    def reset(self, seed: int, row: Mapping[str, Any]) -> Observation | str | None:
        """See :class:`~policyopt.environments.world.Environment`."""
        return None

    async def step(self, action: Action) -> Observation:  # type: ignore[override]
        """Carry out the calls of a turn, in their order; one that goes wrong is answered with what was wrong with it."""
        if not action.calls and not action.faults:
            return Observation(done=True)
        said: list[Message] = [await self._answer(call) for call in action.calls]
        said += [{"role": "tool", "content": f"error: {fault}"} for fault in action.faults]
        wrong = sum(m["content"].startswith("error: ") for m in said)
        return Observation(messages=tuple(said), numbers={"tool_calls": float(len(said)), "tool_errors": float(wrong)})

    async def _answer(self, call: Call) -> Message:
        try:
            tool = find_tool(call, self.tools)
            text = written(await self.outside(tool.call, **tool.checked(call.arguments)))
        except Overdue:
            raise
        except Exception as error:  # a tool is somebody else's: the policy is told what went wrong
            text = error_text(error)
        return {"role": "tool", "content": text, "name": call.name} | ({"tool_call_id": call.id} if call.id else {})


class ObjectWorld(ToolWorld):
    """An object whose public methods are tools.

    ``reset`` gets of a row what it has arguments for, and ``seed`` where it takes that. Raises
    :class:`~policyopt.errors.UserError` for an object without a tool.
    """

    def __init__(self, made: Any) -> None:
        self.object = made
        public = (n for n in dir(made) if not n.startswith("_") and n not in _OURS)
        found = [getattr(made, n) for n in public if inspect.isroutine(getattr(made, n))]
        if not found:
            raise UserError(
                f"{type(made).__name__} has no public method beside reset and get_reward, so there is nothing to call"
            )
        super().__init__([tool_of(method) for method in found], int(getattr(made, "turns", 16)))

    async def reset(self, seed: int, row: Mapping[str, Any]) -> Observation | str | None:  # type: ignore[override]
        """See :class:`~policyopt.environments.world.Environment`."""
        method = getattr(self.object, "reset", None)
        return None if method is None else await self.outside(method, **taken(method, {**row, "seed": seed}))

    async def finish(self) -> Observation | float | None:  # type: ignore[override]
        """See :class:`~policyopt.environments.world.Environment`."""
        method = getattr(self.object, "get_reward", None)
        return None if method is None else await self.outside(method)

    def close(self) -> None:
        """See :class:`~policyopt.environments.world.Environment`."""
        if callable(method := getattr(self.object, "close", None)):
            method()


def taken(function: Callable[..., Any], row: Mapping[str, Any]) -> dict[str, Any]:
    """What of a row a function has arguments for."""
    parameters = inspect.signature(function).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return dict(row)
    names = {p.name for p in parameters}
    return {name: value for name, value in row.items() if name in names}
