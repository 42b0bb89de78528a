"""Objects with tools: every public method with types and a docstring is a tool that the policy may call.

The contract is that of TRL's ``environment_factory``: ``reset(self, **row) -> str | None`` begins an episode, every other public
method is a tool, and ``get_reward(self) -> float``, where there is one, says at the end what the episode was worth; so do reward
functions ``f(environments, prompts, completions, **columns) -> list``. Plain functions are tools without a world."""

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

_OURS = frozenset({"reset", "get_reward"})


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
    """An object whose public methods are tools: those of its class, so that no property is read and no attribute is a tool.

    ``reset`` gets of a row what it has arguments for, and ``seed`` where it takes that. Reward functions are called with lists of one
    entry: the object itself (``environments``), the prompt as messages, the turns with the results of tools in between
    (``completions``), and the columns of the row; what they say is added to what ``get_reward`` says, ``None`` is left out. Raises
    :class:`~policyopt.errors.UserError` for an object without a tool, and for a reward function that asks for ``completion_ids``.
    """

    def __init__(self, made: Any, rewards: Sequence[Callable[..., Any]] = ()) -> None:
        self.object, self.rewards = made, tuple(rewards)
        found = methods_of(made)
        if not found:
            raise UserError(
                f"{type(made).__name__} has no public method beside reset and get_reward, so there is nothing to call"
            )
        for function in self.rewards:
            asked = inspect.signature(function).parameters.get("completion_ids")
            if asked is not None and asked.default is asked.empty:
                raise UserError(
                    f"{function.__name__} asks for completion_ids, which an environment does not see: give it a default, or read completions"
                )
        super().__init__([tool_of(method) for method in found], int(getattr(made, "turns", 16)))
        self.row: Mapping[str, Any] = {}
        self.talk: list[Message] = []

    async def reset(self, seed: int, row: Mapping[str, Any]) -> Observation | str | None:  # type: ignore[override]
        """See :class:`~policyopt.environments.world.Environment`."""
        self.row, self.talk = row, []
        method = getattr(self.object, "reset", None)
        return None if method is None else await self.outside(method, **taken(method, {**row, "seed": seed}))

    async def step(self, action: Action) -> Observation:  # type: ignore[override]
        """See :class:`~policyopt.environments.world.Environment`."""
        said = await super().step(action)
        self.talk += [{"role": "assistant", "content": str(action)}, *said.messages]
        return said

    async def finish(self) -> Observation | float | None:  # type: ignore[override]
        """See :class:`~policyopt.environments.world.Environment`."""
        method = getattr(self.object, "get_reward", None)
        said = [] if method is None else [await self.outside(method)]
        if said and isinstance(said[0], Observation):
            return said[0]
        lists = {name: [value] for name, value in self.row.items()}
        lists |= {"environments": [self.object], "prompts": [self.row.get("prompt")], "completions": [list(self.talk)]}
        for function in self.rewards:
            said += await self.outside(function, **taken(function, lists))
        given = [float(x) for x in said if x is not None]  # numbers of numpy, and tensors of one number, too
        return sum(given) if given else None

    def close(self) -> None:
        """See :class:`~policyopt.environments.world.Environment`."""
        if callable(method := getattr(self.object, "close", None)) and _ends(method):
            method()


def methods_of(made: Any) -> list[Callable[..., Any]]:
    """The public methods of an object that are tools, in the order of their names."""
    kind = type(made)
    named = (n for n in dir(kind) if not n.startswith("_") and n not in _OURS)
    found = [
        getattr(made, n) for n in named if inspect.isfunction(getattr(kind, n)) or inspect.ismethod(getattr(kind, n))
    ]
    return [method for method in found if method.__name__ != "close" or not _ends(method)]


def _ends(close: Callable[..., Any]) -> bool:
    """Whether a method ``close`` lets go of the object; one with arguments is a tool that closes something else."""
    return not inspect.signature(close).parameters


def taken(function: Callable[..., Any], row: Mapping[str, Any]) -> dict[str, Any]:
    """What of a row a function has arguments for."""
    parameters = inspect.signature(function).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return dict(row)
    names = {p.name for p in parameters}
    return {name: value for name, value in row.items() if name in names}
