"""More credit for right answers that the policy did not expect of itself."""

from __future__ import annotations

import torch
from torch import Tensor

from policyopt.batch import Batch, masked_mean
from policyopt.parts.advantage import Normalise, group_mean
from policyopt.parts.base import Finite, NonNegative, part


@part
class NoveltyAdvantage(Normalise):
    r"""A normalised reward, raised on right responses that are less likely than the group's mean.

    .. math:: A'_i = A_i + \min\big(\max(\lambda(1 - \eta_i), 0),\; \kappa \max(A_i, 0)\big),\qquad \eta_i = e^{s_i - \bar s},\qquad
              s_i = \frac{1}{|y_i|}\sum_t \log\pi_{old}(y_{i,t})

    s-bar is the mean over all responses of the group. Source: XRPO, arXiv:2510.06672.
    """

    novelty: NonNegative = 2.5
    """lambda."""
    cap: NonNegative = 0.5
    """kappa: largest rise, as a part of the advantage."""
    right: Finite = 0.5
    """A reward above it makes a response right."""

    def likelihood(self, batch: Batch) -> Tensor:
        """s, [N]."""
        return masked_mean(batch.old_logp, batch.mask, dim=-1)

    def eta(self, batch: Batch) -> Tensor:
        """eta, [N]: below 1 for a response that is less likely than the others."""
        score = self.likelihood(batch)
        return (score - group_mean(score, batch.group)).exp()

    def __call__(self, batch: Batch) -> Tensor:
        advantage = super().__call__(batch)
        wanted = (self.novelty * (1 - self.eta(batch))).clamp(min=0)[:, None]
        right = (batch.reward > self.right)[:, None]
        return (
            advantage + torch.where(right, torch.minimum(wanted, self.cap * advantage.clamp(min=0)), 0.0) * batch.mask
        )
