"""What cases call things in TEMPO."""

from __future__ import annotations

from policyopt.methods.tree.tempo import prefix_values

COLUMNS = {"token_ids": ("tokens", "token")}
KEYS = {
    "prefix_value": lambda run: prefix_values(run.batch),
    "td": lambda run: run.part("advantage").difference(run.shaped),
}
