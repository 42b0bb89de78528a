"""Log-probabilities at another temperature."""

from __future__ import annotations

from torch import Tensor


def tempered_logp(logits: Tensor, target: Tensor, power: float | Tensor) -> Tensor:
    r"""Log-probability [M] of the ids ``target`` [M] under :math:`\pi^{\,p} / \sum_v \pi(v)^p`, from logits [M, V].

    The power p is a number or [M]; 1/p is a temperature. Power 0 is the uniform distribution.
    """
    scaled = logits * (power[:, None] if isinstance(power, Tensor) else power)
    return scaled.gather(-1, target[:, None])[:, 0] - scaled.logsumexp(-1)
