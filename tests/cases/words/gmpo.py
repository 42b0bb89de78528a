"""Words of GMPO."""

from typing import Any

from torch import Tensor


def clipped(run: Any) -> Tensor:
    """The tokens beyond the bound that matters."""
    found = run.part("surrogate").metrics(run.log_ratio, run.credited)
    return (found["clip_fraction/low"] + found["clip_fraction/high"]) * run.credited.mask


KEYS = {
    "clipped": clipped,
    "ratio": lambda run: run.part("surrogate").mean_ratio(run.log_ratio, run.credited) * run.credited.mask,
}
