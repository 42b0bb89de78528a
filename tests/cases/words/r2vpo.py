"""What the cases of r2vpo call things."""

from __future__ import annotations

from policyopt.lens.case import Run
from policyopt.rows import masked_mean


def variance(run: Run) -> float:
    """What the multiplier's controller reads."""
    found = run.part("regularizers.Proximal").metrics(run.credited)
    return float(masked_mean(found[run.controller.metric], run.credited.mask))


KEYS = {
    "ratio_variance": variance,
    "next_lam": lambda run: run.controller.follow(run.part("regularizers.Proximal").coef, variance(run), {}),
}
