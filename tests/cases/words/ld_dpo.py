"""What cases call things in LD-DPO."""

from __future__ import annotations

from ._pairs import GIVEN as GIVEN
from ._pairs import KEYS as KEYS
