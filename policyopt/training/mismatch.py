"""How far the sampler's log-probabilities may lie from the trainer's before a person is told."""

from __future__ import annotations

from collections.abc import Mapping

LIMIT = 0.05
"""Nats on a single token, in float32 and float64: what rounding makes of sharp distributions stays below it."""
LIMIT_16 = 1.0
"""The same for models that compute in 16 bits."""


def too_far(metrics: Mapping[str, float], dtype: str) -> str:
    """What to say of ``mismatch/max`` of a step where it is above the limit for the precision; empty where it is not."""
    short = dtype in ("bfloat16", "float16")
    limit, gap = LIMIT_16 if short else LIMIT, metrics.get("mismatch/max", 0.0)
    if not gap > limit:
        return ""
    advice = (
        "take --dtype float32, or a method that weighs by the difference, such as tis"
        if short
        else "more than rounding: the model is not sampled from exactly; take another --attention, and see docs/models.md"
    )
    return (
        f"sampler and trainer differ by up to {gap:.2g} nats on a token that was just drawn (mismatch/max; limit {limit:g} "
        f"in {dtype}), so ratios are not 1 where they should be: {advice}"
    )
