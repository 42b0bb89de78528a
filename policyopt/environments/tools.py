"""Tools: functions with types and a docstring, which a policy calls by name with arguments in JSON."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError, create_model

from policyopt.environments.calls import Call
from policyopt.errors import UserError, first_line, nearest


@dataclass(frozen=True)
class Tool:
    """Something that a policy may call."""

    name: str
    """What it is called by."""
    call: Callable[..., Any]
    """Carries it out; may be a coroutine function."""
    about: str = ""
    """What it does, for the model."""
    given: Mapping[str, Any] | None = field(default=None, compare=False)
    """JSON Schema of its arguments, where whoever offers the tool says it; unset: the types of ``call`` say it."""

    @cached_property
    def _arguments(self) -> Any:
        return arguments_of(self.call, self.name)

    @property
    def schema(self) -> dict[str, Any]:
        """What a chat template is told of it: ``{"type": "function", "function": {...}}``."""
        parameters = self._arguments.model_json_schema() if self.given is None else dict(self.given)
        parameters.pop("title", None)
        for each in parameters.get("properties", {}).values():
            each.pop("title", None)
        return {
            "type": "function",
            "function": {"name": self.name, "description": self.about, "parameters": parameters},
        }

    def checked(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of a call as the types of the function want them. Raises ``ValueError`` in words for the model."""
        if self.given is not None:
            return dict(arguments)
        try:
            found = self._arguments.model_validate(dict(arguments))
        except ValidationError as error:
            wrong = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'arguments'}: {e['msg']}" for e in error.errors()[:4])
            raise ValueError(wrong) from None
        return {name: getattr(found, name) for name in type(found).model_fields if name in found.model_fields_set}


def arguments_of(function: Callable[..., Any], name: str) -> Any:
    """The arguments of a function as a pydantic model. Raises :class:`~policyopt.errors.UserError` for an argument without a type."""
    hints = get_type_hints(function)
    fields: dict[str, Any] = {}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise UserError(f"the tool {name} takes *{parameter.name}: name every argument, each with a type")
        if parameter.name not in hints:
            raise UserError(
                f"the tool {name}: its argument {parameter.name!r} has no type: the model is told of arguments by their types"
            )
        fields[parameter.name] = (
            hints[parameter.name],
            ... if parameter.default is parameter.empty else parameter.default,
        )
    return create_model(name, __config__=ConfigDict(extra="forbid"), **fields)


def tool_of(function: Callable[..., Any], name: str = "") -> Tool:
    """A function as a tool: its docstring says what it does, its types what it takes.

    Raises :class:`~policyopt.errors.UserError` for an argument without a type.
    """
    named = name or getattr(function, "__name__", type(function).__name__)
    made = Tool(named, function, inspect.getdoc(function) or "")
    made.schema  # noqa: B018  # what is wrong with it is found now
    return made


def written(value: Any) -> str:
    """What a tool returned, as the policy reads it."""
    if isinstance(value, str):
        return value
    try:
        return str(TypeAdapter(Any).dump_json(value).decode())
    except Exception:  # objects of somebody else's
        return repr(value)


def find_tool(call: Call, tools: Sequence[Tool]) -> Tool:
    """The tool that a call names. Raises ``ValueError`` in words for the model."""
    for tool in tools:
        if tool.name == call.name:
            return tool
    raise ValueError(f"no tool is called {call.name!r}; {nearest(call.name, [t.name for t in tools])}")


def error_text(error: BaseException) -> str:
    """What a policy is told of a call that went wrong."""
    return f"error: {first_line(error)}"
