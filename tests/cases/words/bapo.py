"""Words of BAPO."""

from typing import Any


def rho(run: Any, low: float, high: float) -> float:
    """The measure under a pair of bounds."""
    return float(run.part("surrogate.bounds").rho(run.log_ratio, run.credited, low, high))


def found(run: Any) -> tuple[float, float]:
    """The bounds at the end of the search."""
    low, high = run.part("surrogate").window(run.log_ratio, run.credited)
    return float(low), float(high)


KEYS = {
    "measure_before": lambda run: rho(run, 1 - run.part("surrogate.low"), 1 + run.part("surrogate.high")),
    "measure_after": lambda run: rho(run, *found(run)),
    "clip_low": lambda run: found(run)[0],
    "clip_high": lambda run: found(run)[1],
}
