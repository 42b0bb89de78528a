"""Judges and their options as fields of a configuration, and as text on a line or in a file."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Annotated, Any, get_type_hints

from pydantic import PlainValidator, TypeAdapter, ValidationError

from policyopt.judging.names import Written, written

JudgeField = Annotated[Written | None, PlainValidator(written)]
"""A judge in a configuration or on a line: one, or several with weights (:mod:`policyopt.judging.names`)."""


def hints_of(make: Callable[..., Any]) -> dict[str, Any]:
    """The options that a judge is made with, by name, and their types."""
    return {name: kind for name, kind in get_type_hints(make).items() if name not in ("return", "options")}


def read_option(kind: Any, value: Any) -> Any:
    """A value as its type wants it; as it is where that cannot be."""
    if isinstance(value, str) and value.lower() == "none" and type(None) in getattr(kind, "__args__", ()):
        return None
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError:
        return value


def plain(value: Any) -> Any:
    """Text that is a number, true, false or null as that; other text as it is."""
    if not isinstance(value, str) or len(value) > 400:
        return value
    try:
        found = json.loads(value.lower() if value.lower() in ("true", "false", "null", "none") else value)
    except ValueError:
        return None if value.lower() == "none" else value
    return found if isinstance(found, bool | int | float | None) else value
