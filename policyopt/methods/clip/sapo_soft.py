"""SAPO (soft gate)."""

from __future__ import annotations

from policyopt.methods.group.grpo import grpo
from policyopt.parts import SoftGate
from policyopt.recipe import Recipe, Update
from policyopt.registry import method


@method(parent=grpo, arxiv="2511.20347", confidence="secondary")
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
