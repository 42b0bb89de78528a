"""Gates: smooth functions of the ratio in the place of a clip; no token is ever cut off at an edge."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from policyopt.batch import Batch
from policyopt.parts.base import NonNegative, Positive, Surrogate, Weight, part

BOUND = 20.0
"""Log-ratios are held to plus and minus this; beyond it a gate is shut to the last bit, and products would overflow."""


def choose(where: Tensor, yes: float, no: float, like: Tensor) -> Tensor:
    """One number where a condition holds and another elsewhere, in the dtype of ``like``."""
    return torch.where(where, like.new_tensor(yes), like.new_tensor(no))


@part
class SoftGate(Surrogate):
    r"""A sigmoid of the ratio: steepest on-policy, flatter the further the token has moved.

    .. math:: -\frac4\tau\,\sigma(\tau(r - 1))\,A,\qquad \tau = \tau_{pos}\ (A > 0),\ \tau_{neg}\ (A \le 0)

    The gradient is :math:`-4p(1-p)\,r A` with :math:`p = \sigma(\tau(r-1))`: at r = 1 that of the plain ratio for every tau,
    never zero, and small for very small and very large ratios. Source: SAPO, arXiv:2511.20347; log-ratios held to
    20 as in verl.
    """

    tau_pos: Positive = 1.0
    """tau where the advantage is positive; larger is a narrower trust region."""
    tau_neg: Positive = 1.05
    """tau elsewhere."""

    def tau(self, batch: Batch) -> Tensor:
        """tau of each token, [N, T]."""
        return choose(batch.advantage > 0, self.tau_pos, self.tau_neg, batch.advantage)

    def __call__(self, log_ratio: Tensor, batch: Batch) -> Tensor:
        tau, ratio = self.tau(batch), log_ratio.clamp(-BOUND, BOUND).exp()
        return -4 / tau * (tau * (ratio - 1)).sigmoid() * batch.advantage

    def metrics(self, log_ratio: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        ratio = log_ratio.clamp(-BOUND, BOUND).exp()
        p = (self.tau(batch) * (ratio - 1)).sigmoid()
        return {"gate/weight": 4 * p * (1 - p) * ratio}


@part
class GammaWeight(Weight):
    r"""The shape of a gamma density in the ratio: 1 on-policy, largest at :math:`k/\lambda`, small on both sides.

    .. math:: w = sg\big[W^k e^{\lambda(1 - W)}\big],\qquad (k,\lambda) = (k_+,\lambda_+)\ (A \ge 0),\ (k_-,\lambda_-)\ (A < 0)

    With k = 1 and lambda = 0 it is W itself. Source: VESPO, arXiv:2602.10693, and the authors' code (FloyedShen/VESPO),
    where W is the ratio of whole responses, held to [1e-8, e^20].
    """

    k_pos: NonNegative = 2.0
    """k where the advantage is not negative."""
    lambda_pos: NonNegative = 3.0
    """lambda where the advantage is not negative."""
    k_neg: NonNegative = 3.0
    """k where the advantage is negative."""
    lambda_neg: NonNegative = 2.0
    """lambda where the advantage is negative."""

    def __call__(self, log_ratio: Tensor, batch: Batch) -> Tensor:
        log_w = log_ratio.detach().clamp(math.log(1e-8), BOUND)
        good = batch.advantage >= 0
        k = choose(good, self.k_pos, self.k_neg, log_w)
        lam = choose(good, self.lambda_pos, self.lambda_neg, log_w)
        return (lam + k * log_w - lam * log_w.exp()).exp()

    def metrics(self, log_ratio: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        return {"gate/weight": self(log_ratio, batch)}
