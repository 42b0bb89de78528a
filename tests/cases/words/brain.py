"""What cases call things in BRAIn."""

from __future__ import annotations

KEYS = {
    "target_weight": lambda run: run.part("surrogate").log_target(run.credited).exp(),
    "policy_weight": lambda run: run.part("surrogate").log_policy(run.credited).exp(),
}
