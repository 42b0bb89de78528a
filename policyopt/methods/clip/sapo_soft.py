"""SAPO (soft gate)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.methods.group.grpo import grpo
from policyopt.part import Positive, Surrogate, part
from policyopt.parts.surrogate.sign import choose
from policyopt.recipe import Recipe, Update
from policyopt.registry import method
from policyopt.rows import Batch


@part
class SoftGate(Surrogate):
    r"""A sigmoid of the ratio: steepest on-policy, flatter the further the token has moved.

    .. math:: -\frac4\tau\,\sigma(\tau(r - 1))\,A,\qquad \tau = \tau_{pos}\ (A > 0),\ \tau_{neg}\ (A \le 0)

    The gradient is :math:`-4p(1-p)\,r A` with :math:`p = \sigma(\tau(r-1))`: at r = 1 that of the plain ratio for every tau,
    never zero, and small for very small and very large ratios. Source: SAPO, arXiv:2511.20347.
    """

    tau_pos: Positive = 1.0
    """tau where the advantage is positive; larger is a narrower trust region."""
    tau_neg: Positive = 1.05
    """tau elsewhere."""

    def tau(self, batch: Batch) -> Tensor:
        """tau of each token, [N, T]."""
        return choose(batch.advantage > 0, self.tau_pos, self.tau_neg, batch.advantage)

    def __call__(self, log_ratio: Tensor, batch: Batch) -> Tensor:
        tau, ratio = self.tau(batch), log_ratio.exp()
        return -4 / tau * (tau * (ratio - 1)).sigmoid() * batch.advantage

    def metrics(self, log_ratio: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        ratio = log_ratio.exp()
        p = (self.tau(batch) * (ratio - 1)).sigmoid()
        return {"gate/weight": 4 * p * (1 - p) * ratio}


@method(
    parent=grpo,
    arxiv="2511.20347",
    confidence="secondary",
    claim=Claim(
        "Off policy a smooth gate in the place of a hard clip is more stable, and more answers are right within the same budget.",
        "stale",
        (Effect("drop", "lower", 0.01), Effect("accuracy", "higher", 0.02)),
        ours={"minibatches": 1},
        theirs={"kl-coef": 0.0},
    ),
)
def sapo_soft(tau_pos: float = 1.0, tau_neg: float = 1.05, minibatches: int = 4, group_size: int = 8) -> Recipe:
    r"""Soft Adaptive Policy Optimization: a smooth gate of the ratio in the place of the clip.

    .. math:: L = -\frac1N\sum_i\frac1{|y_i|}\sum_t \frac4\tau\,\sigma(\tau(r_{i,t} - 1))\,A_i,\qquad \tau = \tau_{pos}\ (A > 0),\ \tau_{neg}

    No token ever has a zero gradient, but one that has moved far has a small one; that of bad tokens decays faster. At
    r = 1 the gradient is GRPO's. Defaults as in the paper; no KL. Our reading: ``minibatches`` 4, as the gate does
    nothing on the first update.
    """
    return grpo(kl_coef=0.0, group_size=group_size).replace(
        surrogate=SoftGate(tau_pos=tau_pos, tau_neg=tau_neg), update=Update(minibatches=minibatches)
    )
