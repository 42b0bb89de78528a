"""What cases call things in TRPA."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def _levels(given: Mapping[str, Any]) -> dict[str, Any]:
    """A case whose rules have spoken: the best level, 1, is right, and the reward only orders the levels."""
    columns = {name: x for name, x in given.items() if name != "level"}
    columns["reward"] = [-float(level) for level in given["level"]]
    columns["correct"] = [float(level == 1) for level in given["level"]]
    return columns


GIVEN = {"loss": _levels}
KEYS = {"n_pairs": lambda run: len(run.part("surrogate").choose(run.credited)[0])}
