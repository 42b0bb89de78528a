"""Errors that are the user's to mend: the message names the field, line or file and says what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import ValidationError


class UserError(ValueError):
    """Bad input. The command line prints the message alone and exits with 2."""


def first_line(error: BaseException, most: int | None = 300) -> str:
    """The first line of what an error says, at most so many characters of it; its kind where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:most]


def nearest(name: object, known: Iterable[object]) -> str:
    """``"nearest: steps, seed"``, or all that is known where nothing is near."""
    names = [str(k) for k in known]
    return f"nearest: {', '.join(difflib.get_close_matches(str(name), names, n=3, cutoff=0.3) or names)}"


def explain(error: ValidationError, place: str = "") -> str:
    """A validation error in plain words: where (``place`` and the field), what was expected, what was given."""
    return "; ".join(_explain_one(e, place) for e in error.errors(include_url=False))


_EXPECTED = {
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "string_type": "text",
    "path_type": "a path",
    "greater_than_equal": "at least {ge:g}",
    "greater_than": "more than {gt:g}",
    "less_than_equal": "at most {le:g}",
    "less_than": "less than {lt:g}",
    "literal_error": "one of {expected}",
    "dataclass_type": "{class_name}, written as a mapping of its fields",
}


def _explain_one(error: Any, place: str) -> str:
    where = ".".join([*filter(None, [place]), *map(str, error["loc"])])
    head = f"{where}: " if where else ""
    if error["type"] == "value_error":
        return head + error["msg"].removeprefix("Value error, ")
    if error["type"] == "missing":
        return f"{head}is missing"
    if error["type"] == "unexpected_keyword_argument":
        return f"{head}there is no such field"
    known = _EXPECTED.get(error["type"])
    expected = known.format(**error.get("ctx", {})) if known else error["msg"].removeprefix("Input should be ")
    return f"{head}expected {expected}, not {error['input']!r}"
