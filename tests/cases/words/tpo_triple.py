"""What cases call things in TPO."""

from __future__ import annotations

from ._pairs import keys, preferences, told

GIVEN = {"preference_loss": lambda given: told(given, "gold")}
KEYS = keys("gold", preferences)
