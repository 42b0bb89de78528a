"""What the cases of disco call things."""

from __future__ import annotations

KEYS = {"kl": lambda run: run.part("regularizers.TrustRegion").measured(run.credited)}
