"""Models beside the policy that are read, by name, and the columns that hold what they think of the tokens."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field
from torch import Tensor

from policyopt.batch import Batch

SHORT = {"reference": "ref_logp", "teacher": "teacher_logp", "previous": "prev_logp"}
"""Columns of three roles that have a name of their own."""
_LONG = "logp_of["


def _other(name: str) -> str:
    if name in ("policy", "critic"):
        raise ValueError(f"{name!r} is what the run trains: a role is another model, such as reference or teacher")
    return name


RoleName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$"), AfterValidator(_other)]
"""The name of a role: letters, digits, ``_``, ``.`` and ``-``."""


def column_of(role: str) -> str:
    """The column [N, T] with the log-probabilities of a role: ``logp_of[NAME]``, or its short name."""
    return SHORT.get(role, f"{_LONG}{role}]")


def role_of(column: str) -> str | None:
    """The role whose log-probabilities a column holds; ``None`` for any other column."""
    if column.startswith(_LONG):
        return column.removeprefix(_LONG).removesuffix("]")
    return next((role for role, short in SHORT.items() if short == column), None)


def logp_of(batch: Batch, role: str) -> Tensor:
    """[N, T] the log-probabilities of the tokens under a role."""
    column = column_of(role)
    found: Tensor = getattr(batch, column) if role in SHORT else batch.statistics[column]
    return found


def with_logp_of(batch: Batch, role: str, logp: Tensor) -> Batch:
    """The batch with the log-probabilities [N, T] of its tokens under a role."""
    column = column_of(role)
    return batch.replace(**{column: logp}) if role in SHORT else batch.with_statistics({column: logp})
