"""A forward KL: the policy must cover what the reference covers, and is free where the reference is silent."""

from __future__ import annotations

import math

from torch import Tensor

from policyopt.batch import Batch
from policyopt.parts.base import NonNegative, Positive, Regularizer, Statistic, part
from policyopt.parts.statistic import RewardTempered


@part
class ForwardKL(Regularizer):
    r"""A penalty :math:`\alpha\,(\rho\log\rho - \rho + 1)`, :math:`\rho = \hat\pi_{ref}/\pi_\theta` at the sampled token.

    Never negative, 0 where the two agree, and unbiased for :math:`KL(\hat\pi_{ref}\|\pi_\theta)` on-policy. Its gradient
    in log pi is :math:`-\alpha\rho\log\rho`: it pulls up what the reference finds likelier, and lets go of what the
    reference finds impossible. Source: RAPO, arXiv:2510.03865 (from third-party summaries).
    """

    coef: NonNegative = 0.01
    """alpha."""
    target: Statistic = RewardTempered()
    """Log-probability of the sampled token under the reference, taken when the batch is scored."""
    limit: Positive | None = None
    """Largest rho that still has a gradient; None for no limit."""

    @property
    def scored(self) -> tuple[Statistic, ...]:
        return (self.target,)

    def estimate(self, batch: Batch) -> Tensor:
        """The KL at each token, [N, T]."""
        log_ratio = (batch.scored(self.target) - batch.logp).clamp(
            max=math.inf if self.limit is None else math.log(self.limit)
        )
        return log_ratio.exp() * (log_ratio - 1) + 1

    def __call__(self, batch: Batch) -> Tensor:
        return self.coef * self.estimate(batch)
