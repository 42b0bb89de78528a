"""Words of HAPO, the heterogeneous one."""

from torch import Tensor

from policyopt.lens.case import Run


def window(run: Run) -> tuple[Tensor, Tensor]:
    """The bounds of the ratio at each token."""
    low, high = run.part("surrogate").window(run.log_ratio, run.credited)
    return low, high


def strengthened(run: Run) -> Tensor:
    """The advantage as the loss weighs it; as it is where a case gives no entropies, nor outcomes to filter by."""
    if run.batch.entropy is None:
        plain: Tensor = run.part("advantage")(run.batch)
        return plain
    return run.credited.advantage * run.part("weight.EntropyRedistribution")(run.log_ratio, run.credited)


KEYS = {
    "h_hat": lambda run: run.part("surrogate.bounds").scale(run.credited) * run.credited.mask,
    "clip_low_t": lambda run: (1 - window(run)[0]) * run.credited.mask,
    "clip_high_t": lambda run: (window(run)[1] - 1) * run.credited.mask,
    "advantage": strengthened,
}
