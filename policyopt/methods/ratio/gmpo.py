"""GMPO."""

from __future__ import annotations

from policyopt.methods.group.grpo import grpo
from policyopt.parts import GeometricMeanClip
from policyopt.recipe import Recipe, Update
from policyopt.registry import method


@method(parent=grpo, arxiv="2507.20673", code="callsys/GMPO", confidence="code")
def gmpo(low: float | None = 0.4, high: float | None = 0.4, minibatches: int = 1, group_size: int = 8) -> Recipe:
    r"""Geometric-Mean Policy Optimization: the geometric mean of a response's ratios, each token clipped before it.

    .. math:: L = -\frac1N\sum_i A_i\exp\Big(\frac1{|y_i|}\sum_t c_{i,t}\Big),\qquad
              c_{i,t} = \min(\log r_{i,t}, \epsilon_h)\ (A_i > 0),\quad \max(\log r_{i,t}, -\epsilon_l)\ (A_i < 0)

    GRPO's arithmetic mean is ruled by outliers. Bounds are log-ratios, so that 0.4 is a ratio between 0.67 and 1.49.
    The gradient is :math:`-A_i\rho_i/(N|y_i|)` on tokens that are not clipped, 0 on those that are; without any it is
    GSPO without a clip. No KL. Defaults from the authors' script; its eps of the standard deviation is 1e-8.
    """
    return grpo(low, high, kl_coef=0.0, group_size=group_size).replace(
        surrogate=GeometricMeanClip(low=low, high=high), update=Update(minibatches=minibatches)
    )
