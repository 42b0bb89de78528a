"""A statistic of whole distributions as a loss."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from policyopt.part import NonNegative, Regularizer, Statistic, part
from policyopt.parts.statistic.jsd import JSD
from policyopt.rows import Batch


@part
class DistributionLoss(Regularizer):
    """A loss per token that is read off the policy's whole next-token distribution."""

    of: Statistic = JSD()
    """The loss before its coefficient."""
    coef: NonNegative = 1.0
    """What it is multiplied by; a controller may move it."""

    @property
    def live(self) -> tuple[Statistic, ...]:
        return (self.of,)

    def __call__(self, batch: Batch) -> Tensor:
        return self.coef * batch.stat(self.of)

    def metrics(self, batch: Batch) -> Mapping[str, Tensor]:
        return {"distribution_loss": batch.stat(self.of)}
