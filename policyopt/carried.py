"""What a Python session holds and no file does, where a configuration has names: the name says what it was, and carries it.

``<rows of a Python session>`` stands in ``config.yaml``; a run that goes on in another session asks for the rows again.
"""

from __future__ import annotations

from typing import Any

from policyopt.errors import UserError

_END = " of a Python session>"


class Carried(str):
    """A name that carries something. It compares and is written as text."""

    __slots__ = ("value",)
    value: Any

    def __new__(cls, name: str, value: Any = None) -> Carried:
        made = super().__new__(cls, name)
        made.value = value
        return made


def of_session(what: str, value: Any = None) -> Carried:
    """``<what of a Python session>``, which carries the value."""
    return Carried(f"<{what}{_END}", value)


def is_carried(name: str) -> bool:
    """Whether a name is one that only a Python session can fill."""
    return name.startswith("<") and name.endswith(_END)


def need(name: str, argument: str) -> Any:
    """What a name carries. Raises :class:`~policyopt.errors.UserError` where that is gone with its session, naming the
    ``argument`` that has it."""
    if isinstance(name, Carried) and name.value is not None:
        return name.value
    raise UserError(
        f"{argument} is {name}, which is not here: give it again, in Python, as {argument}=..., or start another run with a "
        "file or a folder"
    )
