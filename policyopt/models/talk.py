"""What stands between two turns of a model in a conversation, found out by rendering its chat template once around words that nobody
says: nothing that the model wrote is ever rendered."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from policyopt.errors import UserError
from policyopt.models.template import render, source

if TYPE_CHECKING:
    from policyopt.models.text import Text

Message = Mapping[str, str]

_ANSWER = "quartzanswer"
"""A word that no template writes, in the place of what the model said."""


def tells_of_tools(tokenizer: Any) -> bool:
    """Whether the chat template tells the model which tools there are."""
    return "tools" in source(tokenizer)


def with_tools(messages: Sequence[Message], tools: Sequence[Mapping[str, Any]], role: str = "system") -> list[Message]:
    """Messages behind words that tell of tools, for templates that know of none: in the first message where that is of the ``role``,
    else in one of their own."""
    lines = "\n".join(json.dumps(tool["function"], separators=(",", ":")) for tool in tools)
    about = (
        f"You may call these tools:\n{lines}\nTo call one, write a line of this form and nothing behind it: "
        '{"name": "NAME", "arguments": {"ARGUMENT": VALUE}}'
    )
    if messages and messages[0]["role"] == role:
        parts = (messages[0]["content"], about) if role == "system" else (about, messages[0]["content"])
        return [{**messages[0], "content": "\n\n".join(filter(None, parts))}, *messages[1:]]
    return [{"role": role, "content": about}, *messages]


def between(text: Text, messages: Sequence[Message], last: int, tools: Sequence[Mapping[str, Any]]) -> tuple[int, ...]:
    """Ids from behind the model's turn, whose last token was ``last``, up to where it goes on, with ``messages`` of others in
    between.

    The template is rendered around a word in the place of each message; what stands between the words is encoded as the template
    writes it, what the messages say as plain text. Where the template ends a turn with the token that the model ended it with, that
    is not written again. Raises :class:`~policyopt.errors.UserError` where the template refuses such a conversation.
    """
    if not messages:
        messages = [{"role": "user", "content": ""}]
    marks = [f"quartz{i}said" for i in range(len(messages))]
    frame = framed(text, messages, marks, tools)
    ids: list[int] = []
    for mark, message in zip(marks, messages, strict=True):
        before, found, frame = frame.partition(mark)
        if not found:
            raise UserError(
                f"the chat template of the model leaves out what a message of the role {message['role']!r} says"
            )
        ids += [*text.encode(before), *text.literal(message["content"])]
    ids += text.encode(frame)
    return tuple(ids[1:] if ids and ids[0] == last else ids)


def told_further(messages: Sequence[Message], message: Message) -> list[Message]:
    """Messages with another one behind them; what a user says behind words of a user goes on in the same message."""
    if messages and messages[-1]["role"] == "user" == message["role"]:
        content = "\n".join(filter(None, [messages[-1]["content"], message["content"]]))
        return [*messages[:-1], {**messages[-1], "content": content}]
    return [*messages, message]


def reopened(
    text: Text, messages: Sequence[Message], words: str, tools: Sequence[Mapping[str, Any]]
) -> tuple[int, ...]:
    """Ids of the context in which a model answers chat messages with ``words`` behind the last one. These may be a model's: what spells a
    special token in them stays text. Raises :class:`~policyopt.errors.UserError` where the template refuses them."""
    mark = "quartz0said"
    talk = text.led(told_further(messages, {"role": "user", "content": mark}))
    tokenizer, arguments = text.tokenizer, dict(text.prompting.template_args)
    tells = tells_of_tools(tokenizer)
    if tools and tells:
        arguments["tools"] = list(tools)
    told = [with_tools(talk, tools, role) for role in ("system", "user")] if tools and not tells else [talk]
    plain = "\n\n".join(m["content"] for m in told[0])
    rendered = (render(tokenizer, each, True, **arguments) for each in told) if tokenizer.chat_template else (plain,)
    before, found, after = next(filter(None, rendered), "").rpartition(mark)
    if not found:
        raise UserError("the chat template of the model refuses the prompt with words behind it")
    return (*text.encode(before), *text.literal(words), *text.encode(after))


def framed(text: Text, messages: Sequence[Message], marks: Sequence[str], tools: Sequence[Mapping[str, Any]]) -> str:
    """What the template writes from behind the model's turn on, with marks in the place of what messages say."""
    tokenizer, arguments = text.tokenizer, dict(text.prompting.template_args)
    if not tokenizer.chat_template:
        return "\n\n" + "\n\n".join(marks) + "\n\n"
    if tools and tells_of_tools(tokenizer):
        arguments["tools"] = list(tools)
    begin = [{"role": "user", "content": "quartz"}, {"role": "assistant", "content": _ANSWER}]
    marked = [{**m, "content": mark} for m, mark in zip(messages, marks, strict=True)]
    asked = [{**m, "role": "user"} for m in marked]  # a template that knows no tools is told as a user
    for talk in (marked, asked) if speaks_of(tokenizer, messages) else (asked,):
        written = render(tokenizer, [*begin, *talk], True, **arguments)
        _, found, behind = written.partition(_ANSWER)
        if found and all(mark in behind for mark in marks):
            return behind
    raise UserError("the chat template of the model refuses a conversation in which somebody answers the model")


def speaks_of(tokenizer: Any, messages: Sequence[Message]) -> bool:
    """Whether the template knows the roles of some messages by name."""
    written = source(tokenizer)
    return all(m["role"] in ("user", "system") or m["role"] in written for m in messages)


def told(tokenizer: Any, messages: Sequence[Mapping[str, Any]]) -> list[Message]:
    """Messages of a client as a template can tell them: what tools said as a user where it knows of no tools, calls of tools as the lines
    that :func:`with_tools` asks for where it does not write calls itself."""
    written = source(tokenizer)
    said: list[Message] = []
    for message in messages:
        one = dict(message)
        if one["role"] == "tool" and not speaks_of(tokenizer, [message]):
            one = {"role": "user", "content": one["content"]}
        if one.get("tool_calls") and "tool_calls" not in written:
            lines = [
                json.dumps({"name": c["function"]["name"], "arguments": c["function"]["arguments"]})
                for c in one.pop("tool_calls")
            ]
            one["content"] = "\n".join(filter(None, [one["content"], *lines]))
        said.append(one)
    return said
