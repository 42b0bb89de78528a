"""What the cases of inpo call things."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policyopt.methods.games.inpo import tournament


def pair(given: Mapping[str, Any]) -> dict[str, Any]:
    """The pair that a tournament makes of a table of preferences."""
    return tournament(given["pref"])._asdict()


CASES = {"sampler": pair}
