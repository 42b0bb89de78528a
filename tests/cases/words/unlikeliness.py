"""What cases call things in the unlikeliness reward."""

from __future__ import annotations

KEYS = {
    "score": lambda run: run.part("shape.RankDiscount").log_likelihood(run.batch),
    "rank_from_least_likely": lambda run: run.part("shape.RankDiscount").rank(run.batch),
}
