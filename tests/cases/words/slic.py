"""What cases call things in SLiC-HF."""

from __future__ import annotations

from ._pairs import keys, told

GIVEN = {"preference_loss": lambda given: told(given, "target")}
KEYS = keys("target")
PARAMS = {"lambda": "lam"}
