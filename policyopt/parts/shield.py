"""A clipped surrogate that shields unlikely but reasonable tokens of bad answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from policyopt.batch import Batch
from policyopt.parts.base import Fraction, Level, NonNegative, Positive, Statistic, Unit, part
from policyopt.parts.regularize import kl_estimate
from policyopt.parts.select import LeastLikely
from policyopt.parts.statistic import MinPLogProb
from policyopt.parts.surrogate import PPOClip


@part
class ProxyShield(PPOClip):
    r"""PPO's surrogate, but rare tokens that a cleaned copy of the old policy still allows are pulled back to it.

    .. math:: -A\,r + \beta\,(e^{d} - d - 1),\quad d = \log\pi_{px} - \log\pi_\theta \quad\text{on the shielded tokens}

    Shielded are those among the least likely tokens of bad answers (and of good ones, by ``positive``) that the
    policy now finds less likely than the proxy does; what the proxy cuts off as noise is never shielded. They are not
    clipped. The pull is upward, :math:`\partial/\partial\log\pi_\theta = \beta(1 - e^d) < 0`. Source: Lp-Reg,
    arXiv:2510.03222, and the authors' code (CarlanLark/Lp-Reg-dev), from which the condition on d and ``limit`` are;
    the paper asks for a positive proxy.
    """

    coef: NonNegative = 1.0
    """beta."""
    negative: Fraction = 0.01
    """Share of the tokens with negative advantage that may be shielded: the least likely ones."""
    positive: Fraction = 0.0
    """The same for positive advantage."""
    proxy: MinPLogProb = MinPLogProb()
    """The cleaned old policy."""
    limit: Positive = 10.0
    """Largest value of the penalty before beta; a token beyond it has no pull."""

    unit: ClassVar[Unit] = "batch"
    levels: ClassVar[frozenset[Level]] = frozenset({"token"})

    @property
    def scored(self) -> tuple[Statistic, ...]:
        return (self.proxy,)

    def unlikely(self, batch: Batch) -> Tensor:
        """The least likely tokens of either sign, boolean [N, T]."""
        return LeastLikely(self.negative)(batch) | LeastLikely(self.positive, "positive")(batch)

    def shielded(self, batch: Batch) -> Tensor:
        """Those of them that the proxy finds likelier than the policy does, boolean [N, T]."""
        return self.unlikely(batch) & (batch.logp.detach() < batch.scored(self.proxy))

    def counted(self, log_ratio: Tensor, batch: Batch) -> Tensor:
        return torch.where(self.shielded(batch), log_ratio.exp(), super().counted(log_ratio, batch))

    def __call__(self, log_ratio: Tensor, batch: Batch) -> Tensor:
        target = torch.where(self.shielded(batch), batch.scored(self.proxy), batch.logp.detach())
        pull = kl_estimate(batch.logp, target, "k3").clamp(max=self.limit)
        return super().__call__(log_ratio, batch) + self.coef * pull

    def metrics(self, log_ratio: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        return {**super().metrics(log_ratio, batch), "shielded": self.shielded(batch).to(log_ratio)}
