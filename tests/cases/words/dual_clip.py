"""Words of dual-clip PPO."""

from typing import Any

from torch import Tensor


def dual_clipped(run: Any) -> Tensor:
    """The bad tokens beyond the second bound; none where there is no such bound."""
    found = run.part("surrogate").metrics(run.log_ratio, run.credited)
    return found["clip_fraction/dual"] * run.credited.mask if "clip_fraction/dual" in found else 0 * run.credited.mask


KEYS = {"dual_clipped": dual_clipped}
