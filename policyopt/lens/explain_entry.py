"""What something in the library is that is no method: a part, a task, a study, a tool, a guide."""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

from rich.console import Console
from rich.text import Text

from policyopt.data import load_task
from policyopt.docs import field_docs, paragraphs
from policyopt.lens.explain import written
from policyopt.lens.explain_terminal import CONFIDENCE, print_lines
from policyopt.lens.formula import lines, spoken, unicode
from policyopt.part import Part
from policyopt.recipe import Recipe
from policyopt.registry import Entry, Kind, library_part, methods


def described(entry: Entry) -> dict[str, Any]:
    """All that is known of an entry, as plain data for JSON. Imports what it needs to."""
    about = {
        "name": entry.name, "kind": entry.kind, "family": entry.family, "source": entry.source, "code": entry.code,
        "confidence": entry.confidence, "use": entry.how,
    }  # fmt: skip
    return {name: value for name, value in about.items() if value} | _DESCRIBED[entry.kind](entry)


def show(told: Mapping[str, Any], out: Console) -> None:
    """Print what :func:`described` says."""
    print_lines(view(told), out)


# Of each kind --------------------------------------------------------------------------------------------------------


def _doc(text: str | None) -> dict[str, Any]:
    formulas, prose = paragraphs(text or "")
    return {"formulas": formulas, "text": prose}


def _part(entry: Entry) -> dict[str, Any]:
    cls = library_part(entry.name)
    made = _made(cls)
    facts = {name: _fact(cls, made, name) for name in ("needs", "provides", "asks", "unit", "min_group")}
    users = [name for name, method in methods().items() if cls in set(_classes(method()))]
    return _doc(inspect.getdoc(cls)) | {"fields": [*_fields(cls)]} | facts | {"methods": users}


def _made(cls: type[Part]) -> Part | None:
    """The part with its defaults, where every field has one."""
    try:
        return cls()
    except (TypeError, ValueError):
        return None


def _fact(cls: type[Part], made: Part | None, name: str) -> Any:
    """A property of a part: that of its class, or where it depends on the fields, with their defaults."""
    value = getattr(cls if made is None else made, name)
    if isinstance(value, property):
        return "depends on its fields"
    return sorted(value) if isinstance(value, frozenset) else value


def _classes(x: Recipe | Part) -> Iterator[type]:
    """The classes of all parts in a recipe or a part, however deep."""
    yield type(x)
    fields = [getattr(x, f.name) for f in dataclasses.fields(x)]
    inside = [p for value in fields for p in (value if isinstance(value, tuple) else [value]) if isinstance(p, Part)]
    for p in (*inside, *x.live, *x.fixed):
        yield from _classes(p)


def _fields(cls: type[Part]) -> Iterator[dict[str, str]]:
    docs, declared = field_docs(cls), cls.__pydantic_fields__  # type: ignore[attr-defined]
    for f in dataclasses.fields(cls):
        if f.compare:
            required = f.default is f.default_factory is dataclasses.MISSING
            default = "" if required else written(f.default if f.default is not dataclasses.MISSING else None)
            about = declared[f.name]
            yield {
                "name": f.name, "type": " ".join(filter(None, [_kind(about.annotation), _range(about.metadata)])),
                "default": default, "doc": docs.get(f.name, ""),
            }  # fmt: skip


_BOUNDS = {"ge": "at least {:g}", "gt": "above {:g}", "le": "at most {:g}", "lt": "below {:g}"}


def _kind(kind: Any) -> str:
    """A type in words."""
    inside = typing.get_args(kind)
    if typing.get_origin(kind) is Literal:
        return " or ".join(map(str, inside))
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return " or ".join(_kind(k) for k in inside)
    if typing.get_origin(kind) is typing.Annotated:
        return " ".join(filter(None, [_kind(inside[0]), _range(inside[1:])]))
    if typing.get_origin(kind) is tuple:
        return f"several: {_kind(inside[0])}" if inside[-1] is ... else f"({', '.join(map(_kind, inside))})"
    names = {int: "whole number", float: "number", str: "text", bool: "true or false", type(None): "none"}
    return names.get(kind, getattr(kind, "__name__", str(kind)))


def _range(metadata: Any) -> str:
    """The range that a field's constraints leave, in words."""
    parts = (*metadata, *(inner for m in metadata for inner in getattr(m, "metadata", ())))
    bounds = [text.format(getattr(m, name)) for m in parts for name, text in _BOUNDS.items() if hasattr(m, name)]
    return " and ".join(dict.fromkeys(bounds))


def _testbed(entry: Entry) -> dict[str, Any]:
    task = load_task(entry.name, heldout=1)
    example = task.heldout[0]
    question = "\n".join(message["content"] for message in example.prompt)
    return {
        "text": [entry.summary], "question": question, "answer": example.answer, "solution": example.solution,
        "max_tokens": task.max_tokens, "judge": task.judge.name if task.judge else None,
    }  # fmt: skip


def _registered(entry: Entry) -> dict[str, Any]:
    registered = entry.load()
    arguments = {name: written(p.default) for name, p in registered.hyperparameters.items()}
    return _doc(inspect.getdoc(registered.make)) | {"arguments": arguments}


def _study(entry: Entry) -> dict[str, Any]:
    return _registered(entry) | {"probes": [type(p).__name__ for p in entry.load()()]}


_DESCRIBED: Mapping[Kind, Callable[[Entry], dict[str, Any]]] = {
    "part": _part, "testbed": _testbed, "study": _study, "tool": _registered, "guide": _registered,
}  # fmt: skip


# As lines ------------------------------------------------------------------------------------------------------------


def view(told: Mapping[str, Any]) -> Iterator[Text]:
    """The lines of the view."""
    first, *notes = told["text"] or [""]
    yield Text.assemble((told["name"], "bold"), f"  {spoken(first)}")
    facts = {name: told.get(name) for name in ("kind", "family", "source", "code")}
    facts["facts from"] = CONFIDENCE.get(told.get("confidence", ""))
    yield _pairs({"slot" if name == "family" and told["kind"] == "part" else name: x for name, x in facts.items()})
    yield Text.assemble(("use  ", "dim"), (told["use"], "cyan"))
    for latex in told.get("formulas", ()):
        yield Text()
        yield from (Text(f"    {unicode(piece)}", "cyan") for piece in lines(latex))
    for note in notes:
        yield Text()
        yield Text(spoken(note))
    yield from _details(told)


def _pairs(facts: Mapping[str, Any]) -> Text:
    line = Text()
    for name, value in facts.items():
        if value:
            line.append(f"{name} ", "dim").append(f"{value}   ")
    return line


def _details(told: Mapping[str, Any]) -> Iterator[Text]:
    yield Text()
    for field in told.get("fields", ()):
        default = f", default {field['default']}" if field["default"] else ", must be given"
        yield Text.assemble((f"  {field['name']}", "bold"), f"  {field['type']}{default}  ", (field["doc"], "dim"))
    for name in ("needs", "provides", "asks", "unit", "probes", "methods"):
        if value := told.get(name):
            yield Text.assemble((f"{name}  ", "dim"), value if isinstance(value, str) else ", ".join(value))
    if told.get("min_group", 1) != 1:
        yield Text.assemble(("responses to a prompt  ", "dim"), f"at least {told['min_group']}")
    for name, value in told.get("arguments", {}).items():
        yield Text.assemble((f"  {name}", "bold"), f"  default {value}")
    for name in ("question", "solution"):
        if text := told.get(name):
            yield Text(name, "dim")
            yield from (Text(f"    {line}") for line in text.splitlines())
