"""Pydantic dataclasses as options of a command: every field of every part is one, read and checked by its own type."""

from __future__ import annotations

import dataclasses
import inspect
import json
import shutil
import textwrap
import typing
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, Literal, NamedTuple
from weakref import WeakKeyDictionary

import tyro
from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, StructConstructorSpec, StructFieldSpec

from policyopt.docs import field_docs, plain
from policyopt.errors import UserError, explain

UNNAMED = {"unnamed": True}
"""Metadata of a field that holds a dataclass: its name is no part of the names of the options in it. That of a mapping and
of a value may have ``option``: the name of its option, and a mapping ``plain``: its values are text. That of several texts may have ``repeated``: it is given one by one,
under its own name or one of these."""


def parse(default: Any, args: Sequence[str], *, prog: str, description: str) -> Any:
    """A dataclass like ``default`` with what a line sets.

    An option is called after the path of its field: ``--optim.lr``, ``--recipe.regularizers.KL.coef``; in a slot that
    holds several parts the name there is a part's label, or its class. Fields that could hold parts and hold none are no
    options, nor are labels (fields that do not count when dataclasses are compared).

    Prints the help where it is asked for and raises ``SystemExit(0)``. Explains a line that cannot be read on standard
    error, with the nearest options, and raises ``SystemExit(2)``. Values that do not go together raise
    :class:`~policyopt.errors.UserError`.
    """
    if "-h" in args or "--help" in args:  # tyro would put it all on one line
        width = min(shutil.get_terminal_size().columns, 120)
        print("\n".join(textwrap.fill(line, width) for line in plain(description).split("\n")), end="\n\n")
    return _tyro(default, args, prog=prog, description="").make()


def parse_known(default: Any, args: Sequence[str], *, prog: str) -> Any:
    """As :func:`parse`, but options that ``default`` does not have are passed over, ``--help`` among them."""
    read, _ = _tyro(default, args, prog=prog, return_unknown_args=True, add_help=False)
    return read.make()


def options(*bases: type, docs: str = "", **fields: tuple[Any, Any]) -> Any:
    """A dataclass of options that is put together while the program runs, each ``name=(type, default)``.

    ``docs`` stands for the docstring of each.
    """
    body = {name: default for name, (_, default) in fields.items()} | {"__docs__": dict.fromkeys(fields, docs)}
    kinds = {name: kind for name, (kind, _) in fields.items()}
    return dataclass(frozen=True)(type("Options", bases, body | {"__annotations__": kinds}))()


@dataclasses.dataclass(frozen=True)
class _Read:
    """A dataclass that is still to be made from what was read, so that an error can name the place of the field."""

    cls: type
    fields: dict[str, Any]

    def make(self, place: str = "") -> Any:
        unnamed = {f.name for f in dataclasses.fields(self.cls) if f.metadata == UNNAMED}
        inner = {
            name: _made(value, ".".join(filter(None, [place, "" if name in unnamed else name])))
            for name, value in self.fields.items()
        }
        try:
            return self.cls(**inner)
        except ValidationError as error:
            raise UserError(explain(error, place)) from error


@dataclasses.dataclass(frozen=True)
class _Members:
    """What was read of the parts in a slot that holds several, by name."""

    parts: dict[str, Any]

    def make(self, place: str) -> tuple[Any, ...]:
        return tuple(_made(p, f"{place}.{name}") for name, p in self.parts.items())


def _made(value: Any, place: str) -> Any:
    return value.make(place) if isinstance(value, _Read | _Members) else value


# What there is -------------------------------------------------------------------------------------------------------


class Option(NamedTuple):
    """An option of a command, as plain data that can be kept on the disk."""

    name: str
    """Without the dashes."""
    repeats: bool = False
    """Whether it may stand on a line more than once."""
    takes: bool = True
    """Whether a value follows it."""
    choices: tuple[str, ...] = ()
    """The values that it takes, where these are few."""


def catalogue(default: Any, prefix: str = "") -> Iterator[Option]:
    """The options by which :func:`parse` would change a dataclass."""
    spec = _options(SimpleNamespace(default=default))
    for field in spec.fields if spec is not None else ():
        marks = getattr(field.type, "__metadata__", ())
        named = next((mark.name for mark in marks if getattr(mark, "name", None) is not None), field.name)
        name = ".".join(filter(None, [prefix, named.replace("_", "-")]))
        read = next((mark for mark in marks if isinstance(mark, PrimitiveConstructorSpec)), None)
        if read is not None:
            choices = read.metavar[1:-1].split(",") if read.metavar.startswith("{") else []
            others = (alias.lstrip("-") for mark in marks for alias in getattr(mark, "aliases", None) or ())
            for known in (name, *others):
                yield Option(known, read._action == "append", True, tuple(choices))
        elif field.type is bool:
            before, dot, last = name.rpartition(".")
            yield from (Option(name, takes=False), Option(f"{before}{dot}no-{last}", takes=False))
        else:
            yield from catalogue(field.default, name)


# What tyro is told ---------------------------------------------------------------------------------------------------


def _tyro(default: Any, args: Sequence[str], **settings: Any) -> Any:
    registry = ConstructorRegistry()
    registry.struct_rule(_options)
    return tyro.cli(type(default), default=default, args=list(args), registry=registry, **settings)


def _options(info: Any) -> StructConstructorSpec | None:
    """The options in a dataclass, or in a tuple of them."""
    default = info.default
    if isinstance(default, tuple) and any(map(dataclasses.is_dataclass, default)):
        members = tuple(StructFieldSpec(p.handle, type(p), p, helptext=_about(p)) for p in default)
        return StructConstructorSpec(lambda **read: _Members(read), members)
    if not hasattr(default, "__pydantic_fields__") or isinstance(default, type):
        return None
    cls, docs, fixed, options = type(default), field_docs(type(default)), {}, []
    for f in dataclasses.fields(default):
        declared, value, doc = cls.__pydantic_fields__[f.name], getattr(default, f.name), docs.get(f.name, "")
        if dataclasses.is_dataclass(value):
            kind: Any = Annotated[type(value), tyro.conf.arg(name="")] if f.metadata == UNNAMED else type(value)
            doc = doc if type(value) is declared.annotation else f"{doc} {_about(value)}"
        elif value and isinstance(value, tuple) and all(map(dataclasses.is_dataclass, value)) and _apart(value):
            kind = tuple
        elif not f.compare or any(
            isinstance(t, type) and dataclasses.is_dataclass(t) for t in _walk(declared.annotation)
        ):
            fixed[f.name] = value
            continue
        elif typing.get_origin(declared.annotation) is dict:
            plain_text = typing.get_args(declared.annotation)[1] is not Any or f.metadata.get("plain")
            kind = _pairs(f.metadata.get("option", f.name), (lambda x: x) if plain_text else _json)
        elif "repeated" in f.metadata:
            kind = _repeated(f.metadata.get("option", f.name), f.metadata["repeated"])
            value = _Words([value] if isinstance(value, str) else value or ())
        else:
            leaves = _LEAVES.setdefault(cls, {})
            kind = leaves[f.name] if f.name in leaves else leaves.setdefault(f.name, _leaf(declared))
            if "option" in f.metadata:
                kind = Annotated[kind, tyro.conf.arg(name=f.metadata["option"])]
        options.append(StructFieldSpec(f.name, kind, value, helptext=doc))
    return StructConstructorSpec(lambda **read: _Read(cls, fixed | read), tuple(options))


def _apart(members: tuple[Any, ...]) -> bool:
    """Whether each of several parts has a name of its own."""
    return len({p.handle for p in members}) == len(members)


_LEAVES: WeakKeyDictionary[type, dict[str, Any]] = WeakKeyDictionary()
"""The types of the fields of a class as options: tyro asks for them several times a line, and each compiles a validator."""

_METAVARS = {int: "INT", float: "NUMBER", str: "TEXT", Path: "PATH"}


def _leaf(declared: Any) -> Any:
    """The type of an option that holds a value: it is read by pydantic, in the range that the field allows."""
    kind = declared.annotation
    if kind is bool:
        return bool  # a switch
    adapter: TypeAdapter[Any] = TypeAdapter(Annotated[kind, *declared.metadata] if declared.metadata else kind)
    inside = list(_walk(kind))
    values = typing.get_args(next((t for t in inside if typing.get_origin(t) is Literal), None))
    items = next((typing.get_args(t) for t in inside if typing.get_origin(t) is tuple), None)
    several = items is not None and items[-1] is ...  # as many as one likes
    # Several, or one by itself: where there is one word it is the one.
    one = typing.get_origin(kind) is not tuple and any(
        t is not type(None) and typing.get_origin(t) is not tuple for t in typing.get_args(kind)
    )
    metavar = next((name for cls, name in _METAVARS.items() if cls in inside), "VALUE")
    shown = [metavar, "..."] if several else [metavar] * len(items or "1")
    # "none" takes a bound away; where text is asked for, it is text.
    optional = type(None) in inside and str not in inside and Path not in inside
    none = "none" if optional else "unset"

    def read(words: list[str]) -> Any:
        value: Any = words if items and not (one and len(words) == 1) else words[0]
        try:
            return adapter.validate_python(None if optional and words[0].lower() == "none" else value)
        except ValidationError as error:
            said = explain(error)
            raise ValueError(said.replace(", not ", " or none, not ", 1) if optional else said) from None

    return Annotated[
        Any,
        PrimitiveConstructorSpec(
            nargs="*" if several else len(items) if items else 1,
            metavar=f"{{{','.join(map(str, values))}}}" if values else " ".join(shown),
            instance_from_str=read,
            is_instance=lambda value: True,
            str_from_instance=lambda value: (
                [none] if value is None else [str(v) for v in (value if isinstance(value, tuple) else [value])]
            ),
            choices=None,
        ),
    ]


def _json(text: str) -> Any:
    """A value that is written as JSON, else the text itself."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _pairs(option: str, value_of: Callable[[str], Any]) -> Any:
    """The type of an option that may be given several times, each time with ``NAME=VALUE``."""

    def read(words: list[str]) -> dict[str, Any]:
        pairs = [word.partition("=") for word in words]
        for name, equals, value in pairs or [("", "", "")]:
            if not (name and equals and value):
                raise ValueError(f"expected NAME=VALUE, not {name + equals + value!r}")
        return {name: value_of(value) for name, _, value in pairs}

    return Annotated[
        dict[str, Any],
        tyro.conf.arg(name=option),
        PrimitiveConstructorSpec(
            nargs="*",
            metavar="NAME=VALUE",
            instance_from_str=read,
            is_instance=lambda value: isinstance(value, dict),
            str_from_instance=lambda value: [f"{name}={x}" for name, x in value.items()] or ["unset"],
            choices=None,
            _action="append",  # there is no public way to have an option of one's own more than once
        ),
    ]


class _Words(tuple[str, ...]):
    """The words of an option that may be given several times: those of the line, or else those that were there."""

    def __new__(cls, words: Sequence[str] = ()) -> _Words:
        typed = [word for word in words if isinstance(word, _Typed)]
        return super().__new__(cls, map(str, typed) if typed else words)


class _Typed(str):
    """A word that stands on the line."""


def _repeated(option: str, names: Sequence[str]) -> Any:
    """The type of an option that may be given several times, under other names too; where it is given, what was there goes."""
    return Annotated[
        _Words,
        tyro.conf.arg(name=option, aliases=tuple(names)),
        PrimitiveConstructorSpec(
            nargs=1,
            metavar="TEXT",
            instance_from_str=lambda words: _Typed(words[0]),
            is_instance=lambda value: isinstance(value, _Words),
            str_from_instance=lambda value: [*map(str, value)] or ["unset"],
            choices=None,
            _action="append",
        ),
    ]


def _walk(kind: Any) -> Iterator[Any]:
    """A type and all types in it: of ``tuple[Shape, ...] | None`` the union, the tuple, ``Shape`` and ``None``."""
    yield kind
    if typing.get_origin(kind) is not Literal:
        for inner in typing.get_args(kind):
            yield from _walk(inner)


def _about(p: Any) -> str:
    """What a part in a slot is: its name and the first sentence of its docstring."""
    doc = plain(inspect.getdoc(type(p)) or "").split("\n\n")[0]
    name = type(p).__name__
    return f"{name}." if doc.startswith(f"{name}(") else f"{name}: {doc}"
