"""What cases call things in GRAO."""

from __future__ import annotations

from ._scripted import beside, with_targets

COLUMNS = {"source": ("origin", "row")}
GIVEN = {"loss": lambda given: with_targets(given, "target", list(dict.fromkeys(given["group"])))}
KEYS = beside("target")
