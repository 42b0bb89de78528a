"""What cases call things in TGDPO."""

from __future__ import annotations

from ._pairs import KEYS as KEYS
from ._pairs import told

COLUMNS = {"rm_logp": ("teacher_logp", "token")}
GIVEN = {"preference_loss": lambda given: told(given, tokens={"rm_logp": "rm_{}_logp"})}
