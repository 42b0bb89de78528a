"""Words of StableReinforce."""

from __future__ import annotations

# A case of the filter gives the advantage before it is standardised.
KEYS = {"advantage": lambda run: run.part("advantage").filtered(run.batch.advantage, run.batch.mask)}
