"""What classes of parts are made with: fields that are checked, and their ranges."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass as _dataclass
from typing_extensions import dataclass_transform

Unit = Literal["token", "row", "group", "batch"]
Level = Literal["token", "sequence"]
UNITS: tuple[Unit, ...] = ("token", "row", "group", "batch")

NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Whole = Annotated[int, Field(ge=0)]


def _other(name: str) -> str:
    if name in ("policy", "critic"):
        raise ValueError(f"{name!r} is what the run trains: a role is another model, such as reference or teacher")
    return name


Label = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]
"""A name in a path: a letter, then letters, digits and ``_``."""
RoleName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$"), AfterValidator(_other)]
"""The name of a model beside the policy: letters, digits, ``_``, ``.`` and ``-``."""


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def part(cls: type) -> Any:
    """Make a class a part: a frozen dataclass whose fields are checked against their types and ranges.

    Raises ``pydantic.ValidationError`` when a part is made with a field of the wrong type or out of its range.
    """
    return _dataclass(frozen=True, config=ConfigDict(extra="forbid"))(cls)
