"""Requests of the chat completions protocol, as the clients of language models write them, and the answers to them. What a client
sends may be quoted from a model: it is read with limits."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from policyopt.environments.calls import Call
from policyopt.files import Malformed, parse_json

MODEL = "policy"
"""What the endpoint calls the policy; a request may name any model."""
MOST_MESSAGES = 4096
"""Messages of a request."""
MOST_TOOLS = 256
"""Tools that a request tells of."""
MOST_STOPS = 16
"""Texts at which a request wants an answer to end."""
ROLES = ("system", "developer", "user", "assistant", "tool")


class Refusal(Exception):
    """A request that is not answered: the status, a sentence for the caller and the protocol's short name of the reason."""

    def __init__(self, message: str, status: int = 400, code: str = "invalid_request_error") -> None:
        super().__init__(message)
        self.status, self.code = status, code

    @property
    def body(self) -> dict[str, Any]:
        """What the client is told."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": str(self), "type": kind, "param": None, "code": self.code}}


@dataclass(frozen=True)
class Chat:
    """One request."""

    messages: tuple[Mapping[str, Any], ...]
    """Each with ``role`` and ``content`` as text, and where they are there ``tool_calls`` (arguments as objects), ``tool_call_id``
    and ``name``."""
    tools: tuple[Mapping[str, Any], ...] = ()
    calls: bool = True
    """It wants calls of its tools to be found in the answer."""
    stop: tuple[str, ...] = ()
    most: int | None = None
    """The most tokens of the answer."""
    temperature: float | None = None
    stream: bool = False
    usage: bool = False
    """A stream ends with what was counted."""
    model: str = MODEL


@dataclass(frozen=True)
class Reply:
    """What the policy said to a request."""

    text: str
    """As text, calls of tools left out where there are any."""
    calls: tuple[Call, ...] = ()
    finish: str = "stop"
    """"stop", "length" or "tool_calls"."""
    read: int = 0
    """Tokens that it answers."""
    drawn: int = 0
    """Tokens that were drawn."""
    number: int = 0
    """Which answer of its episode it is."""

    @property
    def message(self) -> dict[str, Any]:
        """As a message of the protocol."""
        said: dict[str, Any] = {"role": "assistant", "content": self.text}
        if self.calls:
            said["content"] = self.text or None
            said["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": json.dumps(dict(call.arguments))},
                }
                for call in self.calls
            ]
        return said

    @property
    def counted(self) -> dict[str, int]:
        """How many tokens it took."""
        return {
            "prompt_tokens": self.read,
            "completion_tokens": self.drawn,
            "total_tokens": self.read + self.drawn,
        }


# Reading ---------------------------------------------------------------------------------------------------------------


def read_chat(body: bytes) -> Chat:
    """The request in a body. Raises :class:`Refusal` naming the field that is wrong."""
    try:
        asked = parse_json(body)
    except Malformed as error:
        raise Refusal(f"the body is not JSON: {error}") from None
    if not isinstance(asked, dict):
        raise Refusal("the body is no JSON object")
    if asked.get("n") not in (None, 1):
        raise Refusal(f"n is {asked['n']!r}: one answer is given to a request; ask again for another one")
    if asked.get("functions"):
        raise Refusal("functions are an old form: tell of tools with `tools`")
    most = asked.get("max_completion_tokens") or asked.get("max_tokens")
    if most is not None and (not isinstance(most, int) or isinstance(most, bool) or most < 1):
        raise Refusal(f"max_tokens is {most!r}: expected a whole number from 1 on")
    options = asked.get("stream_options")
    return Chat(
        read_messages(asked.get("messages")),
        _tools(asked.get("tools")),
        asked.get("tool_choice") != "none",
        _stops(asked.get("stop")),
        most,
        _temperature(asked.get("temperature")),
        asked.get("stream") is True,
        isinstance(options, dict) and options.get("include_usage") is True,
        str(asked.get("model") or MODEL)[:200],
    )


def read_messages(given: Any) -> tuple[Mapping[str, Any], ...]:
    """The messages of a request. Raises :class:`Refusal`."""
    if not isinstance(given, list) or not 1 <= len(given) <= MOST_MESSAGES:
        raise Refusal(f"messages: expected a list of 1 to {MOST_MESSAGES} messages")
    return tuple(_message(message, f"messages[{i}]") for i, message in enumerate(given))


def _message(given: Any, place: str) -> dict[str, Any]:
    if not isinstance(given, dict) or given.get("role") not in ROLES:
        raise Refusal(f"{place}: expected an object whose role is one of {', '.join(ROLES)}")
    role = "system" if given["role"] == "developer" else given["role"]
    message: dict[str, Any] = {"role": role, "content": _content(given.get("content"), place)}
    if role == "assistant" and given.get("tool_calls"):
        message["tool_calls"] = _calls(given["tool_calls"], place)
    for name in ("name", "tool_call_id"):
        if isinstance(given.get(name), str):
            message[name] = given[name][:200]
    return message


def _content(given: Any, place: str) -> str:
    if given is None or isinstance(given, str):
        return given or ""
    if not isinstance(given, list):
        raise Refusal(f"{place}.content: expected text, or a list of parts")
    for part in given:
        if not isinstance(part, dict) or not isinstance(part.get("text"), str):
            kind = part.get("type") if isinstance(part, dict) else type(part).__name__
            raise Refusal(f"{place}.content has a part of the type {kind!r}: text alone is read")
    return "\n".join(part["text"] for part in given)


def _calls(given: Any, place: str) -> list[dict[str, Any]]:
    if not isinstance(given, list) or len(given) > MOST_TOOLS:
        raise Refusal(f"{place}.tool_calls: expected a list of at most {MOST_TOOLS} calls")
    calls = []
    for one in given:
        inner = one.get("function") if isinstance(one, dict) else None
        if not isinstance(inner, dict) or not isinstance(inner.get("name"), str):
            raise Refusal(f"{place}.tool_calls: a call has to have a function with a name")
        arguments = inner.get("arguments") or {}
        if isinstance(arguments, str):
            try:
                arguments = parse_json(arguments)
            except Malformed:  # an agent may quote what no model should have written
                arguments = {"": arguments}
        function = {"name": inner["name"], "arguments": arguments}
        calls.append({"id": str(one.get("id", ""))[:200], "type": "function", "function": function})
    return calls


def _tools(given: Any) -> tuple[Mapping[str, Any], ...]:
    if given is None:
        return ()
    if not isinstance(given, list) or len(given) > MOST_TOOLS:
        raise Refusal(f"tools: expected a list of at most {MOST_TOOLS} tools")
    found = []
    for i, tool in enumerate(given):
        inner = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(inner, dict) or not isinstance(inner.get("name"), str):
            raise Refusal(f"tools[{i}]: expected {{'type': 'function', 'function': {{'name': ...}}}}")
        about = {
            "name": inner["name"],
            "description": inner.get("description") or "",
            "parameters": inner.get("parameters") or {},
        }
        found.append({"type": "function", "function": about})
    return tuple(found)


def _stops(given: Any) -> tuple[str, ...]:
    stops = [given] if isinstance(given, str) else given or []
    if not isinstance(stops, list) or len(stops) > MOST_STOPS:
        raise Refusal(f"stop: expected a text, or at most {MOST_STOPS} of them")
    if not all(isinstance(s, str) and 0 < len(s) <= 1000 for s in stops):
        raise Refusal("stop: expected texts of 1 to 1000 characters")
    return tuple(stops)


def _temperature(given: Any) -> float | None:
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, int | float) or not (math.isfinite(given) and 0 <= given <= 10):
        raise Refusal(f"temperature is {given!r}: expected a number from 0 (greedy) to 10")
    return float(given)


# Writing ---------------------------------------------------------------------------------------------------------------


def write_reply(chat: Chat, reply: Reply) -> dict[str, Any]:
    """The answer to a request as an object of the protocol."""
    choice = {"index": 0, "message": reply.message, "logprobs": None, "finish_reason": reply.finish}
    return _head(chat, reply, "chat.completion") | {"choices": [choice], "usage": reply.counted}


def write_stream(chat: Chat, reply: Reply) -> bytes:
    """The answer to a request as a stream of events: all that was said is one of them."""
    head, said = _head(chat, reply, "chat.completion.chunk"), reply.message
    for i, call in enumerate(said.get("tool_calls", ())):
        call["index"] = i
    chunks: list[dict[str, Any]] = [
        head | {"choices": [{"index": 0, "delta": said, "finish_reason": None}]},
        head | {"choices": [{"index": 0, "delta": {}, "finish_reason": reply.finish}]},
    ]
    if chat.usage:
        chunks.append(head | {"choices": [], "usage": reply.counted})
    return "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks).encode() + b"data: [DONE]\n\n"


def write_models() -> dict[str, Any]:
    """The models that there are."""
    return {
        "object": "list",
        "data": [{"id": MODEL, "object": "model", "created": 0, "owned_by": "policyopt"}],
    }


def _head(chat: Chat, reply: Reply, kind: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{reply.number}", "object": kind, "created": 0, "model": chat.model}


# Comparing -------------------------------------------------------------------------------------------------------------


def digest(message: Mapping[str, Any]) -> str:
    """A text that two messages have in common exactly where they say the same.

    What an assistant said is taken without the white space around it, which clients and chat templates strip, and calls of tools
    without their ids and the way in which their arguments were written down.
    """
    content = message["content"]
    if message["role"] != "assistant":
        return json.dumps([message["role"], content, message.get("name"), message.get("tool_call_id")])
    calls = [[c["function"]["name"], c["function"]["arguments"]] for c in message.get("tool_calls", ())]
    return json.dumps(["assistant", content.strip(), calls], sort_keys=True)


def spoken(reply: Reply) -> Mapping[str, Any]:
    """A reply as the message that comes back in the next request."""
    [message] = read_messages([reply.message])
    return message


def size(chat: Chat) -> int:
    """Characters of a request that a model would have to read."""
    return sum(len(m["content"]) for m in chat.messages) + len(json.dumps(chat.tools))


def behind_last(messages: Sequence[Mapping[str, Any]], known: int) -> Sequence[Mapping[str, Any]] | None:
    """The messages behind the first ``known`` ones, where others than the policy said them; ``None`` where there are none or the policy
    would have said one of them."""
    new = messages[known:]
    return new if new and all(m["role"] != "assistant" for m in new) else None
