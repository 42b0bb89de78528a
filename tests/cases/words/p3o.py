"""What the cases of p3o call things."""

from __future__ import annotations

KEYS = {
    "kl_reward": lambda run: run.shaped.total_reward(),
    "sequence_ratio": lambda run: run.part("surrogate").score(run.batch).exp(),
}
