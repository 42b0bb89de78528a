"""How concentrated whole next-token distributions are."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from policyopt.part import Statistic, part


@part
class LogCollision(Statistic):
    r"""The logarithm of the probability that two tokens of the policy are the same, :math:`\log\sum_v\pi(v)^2`.

    Sources: WPO, arXiv:2406.11827, eq. 2; the optimal token baseline, arXiv:2602.07078 (the norm of the gradient of the logits).
    """

    def __call__(self, logits: Tensor, target: Tensor, others: Mapping[str, Tensor]) -> Tensor:
        return (2 * logits).logsumexp(-1) - 2 * logits.logsumexp(-1)
