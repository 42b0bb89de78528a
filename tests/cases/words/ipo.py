"""What cases call things in IPO."""

from __future__ import annotations

from ._pairs import GIVEN as GIVEN
from ._pairs import KEYS as KEYS

PARAMS = {"average_log_prob": "mean"}
