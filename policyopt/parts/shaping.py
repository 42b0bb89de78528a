"""Policy shaping: what somebody else wrote, or the policy in another context, learned from without a ratio."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from policyopt.batch import Batch, masked
from policyopt.parts.base import Level, Positive, Surrogate, Wrapper, part
from policyopt.parts.surrogate import RatioTimesAdvantage


@part
class PolicyShaping(Wrapper, Surrogate):
    r"""A bounded function of the probability on auxiliary rows, another surrogate on the others.

    .. math:: -f(p_{i,t})\,A,\qquad f(p) = \frac{p}{p + \gamma},\quad p = \pi_\theta(y_{i,t} \mid x, y_{i,<t})
              \qquad \text{where } \mathrm{source}_i > 0

    The gradient of f with respect to log p is :math:`\gamma p / (p + \gamma)^2`: largest where p is gamma, so tokens that
    the policy finds unlikely are not lost. Who wrote them, and how likely that was, is of no account. Source:
    Critique-GRPO, arXiv:2506.03106, and the authors' code (zhangxy-2019/critique-GRPO).
    """

    gamma: Positive = 0.1
    """The probability at which the gradient is largest."""
    inner: Surrogate = RatioTimesAdvantage()
    """The surrogate of rows that the main program drew."""

    @property
    def levels(self) -> frozenset[Level]:  # type: ignore[override]
        """The inner surrogate's."""
        return self.inner.levels

    def __call__(self, log_ratio: Tensor, batch: Batch) -> Tensor:
        own = self.own(batch)
        mine = self.inner(masked(log_ratio, own), batch)
        return torch.where(own, mine, -self.shaped(batch.logp) * batch.advantage)

    def shaped(self, logp: Tensor) -> Tensor:
        """f, from log-probabilities."""
        return (logp - math.log(self.gamma)).sigmoid()

    def own(self, batch: Batch) -> Tensor:
        """Boolean [N, T]: the rows that have a ratio."""
        main = torch.zeros_like(batch.mask[:, 0]) if batch.source is None else batch.source
        return (main == 0)[:, None].expand_as(batch.mask)

    def metrics(self, log_ratio: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        return self.inner.metrics(masked(log_ratio, self.own(batch)), batch)
