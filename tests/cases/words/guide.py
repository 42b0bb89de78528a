"""What cases call things in Guide."""

from __future__ import annotations

COLUMNS = {"guided": ("origin", "row")}
KEYS = {"used_row": lambda run: run.used.double()}
