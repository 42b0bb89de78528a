"""What the cases of vpo call things."""

from __future__ import annotations

from ._pairs import keys, preferences, told

GIVEN = {"preference_loss": lambda given: told(given, "cal")}
KEYS = keys("cal", preferences)
PARAMS = {"sign": lambda sign: {"optimism": sign > 0}}
