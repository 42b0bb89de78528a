"""Calls of tools in what a model wrote, in the forms of the common chat templates. What a model wrote is hostile: it is read
with limits, and what cannot be read becomes a fault that the model is told about."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from policyopt.files import Malformed, parse_json

MOST_CALLS = 16
"""Calls in one turn; those beyond are faults."""
LONGEST = 65_536
"""Characters of one call."""
TEXT = 262_144
"""Characters of a turn that are looked at."""
_NAME = re.compile(r"[A-Za-z_][\w.-]{0,127}")


@dataclass(frozen=True)
class Call:
    """One call of a tool."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    id: str = ""
    """What the model called it, where its form has such names."""


Found = tuple[list[Call], list[str]]
"""Calls, and what is wrong with those that could not be read."""


class _Fault(Exception):
    """What is wrong with a call, in words for the model."""


def hermes(text: str) -> Found:
    """``<tool_call>{"name": ..., "arguments": {...}}</tool_call>``: Hermes, Qwen; a block that is not closed ends with the turn."""
    return _read(_blocks(text, "<tool_call>", "</tool_call>"))


def mistral(text: str) -> Found:
    """``[TOOL_CALLS][{"name": ..., "arguments": {...}}]``, and the newer ``[TOOL_CALLS]name[ARGS]{...}``."""
    parts = text.split("[TOOL_CALLS]")[1 : MOST_CALLS + 2]
    return _read((_named(part) if "[ARGS]" in part[:256] else part) for part in parts)


def llama(text: str) -> Found:
    """``<|python_tag|>{"name": ..., "parameters": {...}}``, or such objects alone, parted by ``;``: Llama 3."""
    head, tag, rest = text.partition("<|python_tag|>")
    said = (rest if tag else head).strip()
    return _read(_objects(said)) if tag or said.startswith("{") else ([], [])


def plain(text: str) -> Found:
    """``{"name": ..., "arguments": {...}}`` on a line of its own, or in a fence: models whose template has no form of its own."""
    fenced = re.findall(r"```(?:json|tool_call)?\s*\n(.{0,65536}?)\n```", text, re.DOTALL)
    lines = fenced or [line for line in text.splitlines() if line.startswith('{"name"')]
    return _read(iter(lines[: MOST_CALLS + 1]))


FORMS: Mapping[str, Callable[[str], Found]] = {"hermes": hermes, "mistral": mistral, "llama": llama, "json": plain}
"""The forms by name."""

_MARKS = (
    ("<tool_call>", "hermes"),
    ("[TOOL_CALLS]", "mistral"),
    ("<|python_tag|>", "llama"),
    ('"parameters": ', "llama"),
)


def form_of(template: str) -> str:
    """The form in which a chat template has the model call tools; "json" where it has none."""
    return next((form for mark, form in _MARKS if mark in template), "json")


def find_calls(text: str, form: str) -> Found:
    """The calls in what a model wrote, in their order, and what is wrong with those that could not be read. Never raises for a text."""
    calls, faults = FORMS[form](text[:TEXT])
    if len(text) > TEXT:
        faults.append(f"only the first {TEXT} characters of a turn are looked at")
    return calls, faults


_BEGINS = {
    "hermes": ("<tool_call>",),
    "mistral": ("[TOOL_CALLS]",),
    "llama": ("<|python_tag|>", "{"),
    "json": ("```", '{"name"'),
}


def before_calls(text: str, form: str) -> str:
    """What a model wrote before the first of its calls."""
    begins = [at for mark in _BEGINS[form] if (at := text.find(mark)) >= 0]
    return text[: min(begins, default=len(text))].strip()


def _read(blocks: Iterator[str]) -> Found:
    calls: list[Call] = []
    faults: list[str] = []
    for number, block in enumerate(blocks):
        if number >= MOST_CALLS:
            faults.append(f"more than {MOST_CALLS} calls in one turn: the others are not carried out")
            break
        try:
            calls += _calls(block)
        except _Fault as fault:
            faults.append(str(fault))
    if len(calls) > MOST_CALLS:
        faults.append(f"more than {MOST_CALLS} calls in one turn: the others are not carried out")
    return calls[:MOST_CALLS], faults


def _calls(block: str) -> list[Call]:
    if len(block) > LONGEST:
        raise _Fault(f"a call of {len(block)} characters: at most {LONGEST} are read")
    try:
        said = parse_json(block.strip())
    except Malformed as error:
        raise _Fault(f"this call is no JSON: {error}") from None
    return [_call(one) for one in (said if isinstance(said, list) else [said])]


def _call(said: Any) -> Call:
    if not isinstance(said, dict):
        raise _Fault('a call has to be an object {"name": ..., "arguments": {...}}')
    inner = said.get("function")
    said = inner if isinstance(inner, dict) else said
    name, given = said.get("name"), said.get("arguments", said.get("parameters", {}))
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise _Fault('this call has no "name" that could be the name of a tool')
    if isinstance(given, str):  # some models write the object as text
        try:
            given = parse_json(given)
        except Malformed:
            raise _Fault(f'the "arguments" of {name} are no JSON object') from None
    if not isinstance(given, dict):
        raise _Fault(f'the "arguments" of {name} have to be an object')
    return Call(name, given, str(said.get("id", ""))[:128])


def _blocks(text: str, begin: str, end: str) -> Iterator[str]:
    at = text.find(begin)
    while at >= 0:
        close = text.find(end, at)
        yield text[at + len(begin) : close if close >= 0 else None]
        at = text.find(begin, close) if close >= 0 else -1


def _named(part: str) -> str:
    """``name[ARGS]{...}`` as an object."""
    name, _, given = part.partition("[ARGS]")
    name = name.split("[CALL_ID]")[0].strip()
    return f'{{"name": {json.dumps(name)}, "arguments": {given}}}'


def _objects(text: str) -> Iterator[str]:
    """JSON objects one after the other, parted by ``;`` or nothing."""
    decode = json.JSONDecoder().raw_decode
    at = 0
    while at < len(text):
        if text[at] in "; \n\t":
            at += 1
            continue
        try:
            _, stop = decode(text, at) if text.count("{", at) < 10_000 else (None, len(text))
        except (ValueError, RecursionError):
            stop = len(text)
        yield text[at:stop]
        at = stop
