"""What the cases of r2vpo call things."""

from __future__ import annotations

from policyopt.lens.case import Run
from policyopt.rows import masked_mean


def variance(run: Run) -> float:
    """What the multiplier's controller reads."""
    found = run.part("regularizers.0").metrics(run.credited)
    return float(masked_mean(found[run.part("controllers.0").metric], run.credited.mask))


KEYS = {
    "ratio_variance": variance,
    "next_lam": lambda run: run.part("controllers.0").updated(run.part("regularizers.0").coef, variance(run)),
}
