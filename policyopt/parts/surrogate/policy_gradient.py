"""Policy gradients without a bound."""

from __future__ import annotations

from torch import Tensor

from policyopt.part import Surrogate, part
from policyopt.rows import Batch


@part
class RatioTimesAdvantage(Surrogate):
    r"""The unclipped importance-weighted surrogate :math:`-r A` (conservative policy iteration; arXiv:1707.06347, eq. 6).

    Its gradient is that of :class:`LogProb` under the weight :class:`TruncatedRatio` without bounds; its value is the
    estimate of the objective, that of the other is not.
    """

    def __call__(self, log_ratio: Tensor, batch: Batch) -> Tensor:
        return -log_ratio.exp() * batch.advantage


@part
class LogProb(Surrogate):
    r"""The score-function surrogate :math:`-A \log\pi_\theta(y_{i,t})`.

    Reads no ratio: off-policy it is biased unless a ``weight`` corrects it; with the whole ratio as a weight it has the
    gradient of :class:`RatioTimesAdvantage`. Source: REINFORCE, Williams 1992.
    """

    def __call__(self, log_ratio: Tensor, batch: Batch) -> Tensor:
        return -batch.advantage * batch.logp
