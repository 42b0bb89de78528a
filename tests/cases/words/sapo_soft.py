"""What the cases of sapo-soft call things."""

from __future__ import annotations

KEYS = {
    "weight": lambda run: run.part("surrogate").metrics(run.log_ratio, run.credited)["gate/weight"] * run.credited.mask,
}
