"""Words of HAPO, the heterogeneous one."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from policyopt.lens.given import build_batch
from policyopt.methods.clip.hapo_heterogeneous import TokenNormalise


def window(run: Any) -> tuple[Tensor, Tensor]:
    """The bounds of the ratio at each token."""
    low, high = run.part("surrogate").window(run.log_ratio, run.credited)
    return low, high


def token_statistics(given: Mapping[str, Any]) -> dict[str, Any]:
    """A case of the advantage alone has no outcomes to filter by and no budget."""
    params = {"fallback": given["params"]["fallback_threshold"]}
    return {"advantage": TokenNormalise(**params)(build_batch(given, {}))}


CASES = {"advantage": token_statistics}
KEYS = {
    "h_hat": lambda run: run.part("surrogate.bounds").scale(run.credited) * run.credited.mask,
    "clip_low_t": lambda run: (1 - window(run)[0]) * run.credited.mask,
    "clip_high_t": lambda run: (window(run)[1] - 1) * run.credited.mask,
    "advantage": lambda run: (
        run.credited.advantage * run.part("weight.EntropyRedistribution")(run.log_ratio, run.credited)
    ),
}
