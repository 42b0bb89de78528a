"""VESPO."""

from __future__ import annotations

from policyopt.methods.baseline.reinforce import reinforce
from policyopt.parts import GammaWeight, Normalise, TokenMean, TrajectoryRatio
from policyopt.recipe import Recipe, Update
from policyopt.registry import method


@method(parent=reinforce, arxiv="2602.10693", code="FloyedShen/VESPO", confidence="code")
def vespo(
    k_pos: float = 2.0,
    lambda_pos: float = 3.0,
    k_neg: float = 3.0,
    lambda_neg: float = 2.0,
    mismatch_cap: float | None = None,
    minibatches: int = 4,
    group_size: int = 8,
) -> Recipe:
    r"""Variational Sequence-Level Soft Policy Optimization: the importance ratio of the whole response, tamed by a
    kernel in the shape of a gamma density.

    .. math:: L = -\frac{1}{\sum_i|y_i|}\sum_{i,t} sg[\phi(W_i)]\,A_i\log\pi_\theta(y_{i,t}),\qquad
              \phi(W) = W^k e^{\lambda(1-W)},\quad W_i = \prod_t r_{i,t}

    k and lambda differ for good and bad responses. On-policy phi is 1 (REINFORCE with the advantage of the group); it
    falls to 0 for W to 0 and to infinity. With ``mismatch_cap`` W holds trainer over sampler too, each token's ratio cut
    at the cap. Defaults from the authors' scripts (their docstring has 2, 1.5, 4, 2.5).
    """
    return reinforce(baseline="none", group_size=group_size).replace(
        advantage=Normalise(centre="group", scale="group"),
        ratio=TrajectoryRatio(mismatch_cap=mismatch_cap),
        weight=(GammaWeight(k_pos=k_pos, lambda_pos=lambda_pos, k_neg=k_neg, lambda_neg=lambda_neg),),
        aggregate=TokenMean(),
        update=Update(minibatches=minibatches),
    )
