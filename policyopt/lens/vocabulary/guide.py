"""What cases call things in Guide."""

from __future__ import annotations

COLUMNS = {"guided": ("source", "row")}
PARAMS = {"agg": "aggregate", "adv_eps": "advantage.eps", "ddof": "advantage.ddof"}
KEYS = {"used_row": lambda run: run.keep.double()}
