"""Chat messages of a row, and prompts made of them. What cannot be used is named with its place."""

from __future__ import annotations

import json
from typing import Any

from policyopt.errors import UserError
from policyopt.items import Message, user

_ROLES = ("system", "user", "assistant", "tool")
_SHAREGPT = {"human": "user", "gpt": "assistant"}


def prompt_of(place: str, prompt: Any) -> tuple[Message, ...]:
    """A prompt as messages: text is one message of the user.

    Raises :class:`~policyopt.errors.UserError` for what is neither, and for an empty one.
    """
    prompt = from_text(prompt)
    if isinstance(prompt, str):
        if not prompt.strip():
            raise UserError(f"{place}: prompt is empty")
        if prompt.lstrip().startswith(("[{'role'", "[{'content'")):
            raise UserError(f"{place}: prompt is chat messages as Python writes them: write them as JSON")
        return user(unicode_of(f"{place}: prompt", prompt))
    if not isinstance(prompt, list):
        raise UserError(f"{place}: prompt is {kind_of(prompt)}, expected text or a list of chat messages")
    return chat_of(f"{place}: prompt", prompt)


def from_text(value: Any) -> Any:
    """Chat messages that are written as JSON text; anything else as it is."""
    if not isinstance(value, str) or not value.lstrip().startswith(("[{", "[ {", "[\n")):
        return value
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        return value
    chat = (
        isinstance(found, list)
        and found
        and all(isinstance(m, dict) and {"role", "content"} <= m.keys() for m in found)
    )
    return found if chat else value


def chat_of(place: str, messages: Any) -> tuple[Message, ...]:
    """A list of one or more chat messages. Raises :class:`~policyopt.errors.UserError` for anything else."""
    if not isinstance(messages, list):
        raise UserError(f"{place} is {kind_of(messages)}, expected a list of chat messages")
    if not messages:
        raise UserError(f"{place} has no messages")
    return tuple(message_of(f"{place}, message {i}", message) for i, message in enumerate(messages, 1))


def message_of(place: str, message: Any) -> Message:
    """A chat message, in the words of ShareGPT too.

    Raises :class:`~policyopt.errors.UserError` for anything else, and for content that is no text.
    """
    if not isinstance(message, dict):
        raise UserError(f"{place} is {kind_of(message)}, expected an object with role and content")
    # Parquet fills fields that only other messages have
    message = {key: value for key, value in message.items() if value is not None}
    if {"from", "value"} <= message.keys() and "role" not in message:
        role = message.pop("from")
        message |= {
            "role": _SHAREGPT.get(role, role) if isinstance(role, str) else role,
            "content": message.pop("value"),
        }
    if set(message) != {"role", "content"}:
        names = ", ".join(key[:60] for key in list(message)[:12])
        raise UserError(f"{place} has {names or 'nothing'}, expected role and content")
    if message["role"] not in _ROLES:
        raise UserError(f"{place}: role is {str(message['role'])[:60]!r}, expected one of {', '.join(_ROLES)}")
    return {"role": message["role"], "content": unicode_of(f"{place}: content", _content(place, message["content"]))}


def _content(place: str, content: Any) -> str:
    """The text of a message; of one in parts, what its texts say."""
    if isinstance(content, list) and content and all(isinstance(part, dict) for part in content):
        for part in content:
            if (kind := part.get("type")) != "text" or not isinstance(part.get("text"), str):
                raise UserError(
                    f"{place}: content has a part of the type {str(kind)[:60]!r}, and models here read text alone"
                )
        return "".join(part["text"] for part in content)
    if not isinstance(content, str):
        raise UserError(f"{place}: content is {kind_of(content)}, expected text")
    return content


def with_input(place: str, prompt: tuple[Message, ...], text: Any) -> tuple[Message, ...]:
    """The prompt with an input after its last message, a blank line between them; an empty one changes nothing."""
    if not isinstance(text, str):
        raise UserError(f"{place} is {kind_of(text)}, expected text")
    if not text.strip():
        return prompt
    last = {**prompt[-1], "content": f"{prompt[-1]['content']}\n\n{unicode_of(place, text)}"}
    return (*prompt[:-1], last)


def with_system(place: str, prompt: tuple[Message, ...], text: Any) -> tuple[Message, ...]:
    """The prompt with a message of the system before it, where it has none of its own."""
    if not isinstance(text, str):
        raise UserError(f"{place} is {kind_of(text)}, expected text")
    if not text.strip() or prompt[0]["role"] == "system":
        return prompt
    return ({"role": "system", "content": unicode_of(place, text)}, *prompt)


def unicode_of(place: str, text: str) -> str:
    """``text`` itself. JSON can hold half of a surrogate pair, which no tokenizer takes, and a null character."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{place}: not Unicode text (half a surrogate pair at character {error.start})") from None
    if "\0" in text:
        raise UserError(f"{place}: holds a null character (character {text.index(chr(0))})")
    return text


def kind_of(value: Any) -> str:
    """What kind of JSON a value is, in words."""
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else type(value).__name__)
