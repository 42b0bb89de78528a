"""What the cases of xpo call things."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ._pairs import KEYS as KEYS
from ._pairs import told


def _written(given: Mapping[str, Any]) -> dict[str, Any]:
    """The reference wrote one text of each pair."""
    chosen = given["ref_sample_is_chosen"]
    return told(given) | {"origin": [float(x) for x in chosen] + [float(1 - x) for x in chosen]}


GIVEN = {"preference_loss": _written}
