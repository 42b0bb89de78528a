"""What cases call things in S-GRPO."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any


def _serial(given: Mapping[str, Any]) -> dict[str, Any]:
    """Exits from early to late in each group; the last row of a group is the whole response, which has number 0."""
    rows, seen, number = Counter(given["group"]), Counter[Any](), []
    for g in given["group"]:
        seen[g] += 1
        number.append(seen[g] % rows[g])
    return {**given, "exit": number}


COLUMNS = {"exit": ("origin", "row")}
GIVEN = {"reward": _serial}
