"""DCPO, the one with dynamic clipping."""

from __future__ import annotations

from policyopt.methods.clip.dapo import dapo
from policyopt.parts import PPOClip, ProbabilityBounds, SeqSumTokenMean, SmoothNormalise, VisitMoments
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rollout.group import Group


@method(parent=dapo, arxiv="2509.02333", code="lime-RL/DCPO", confidence="code")
def dcpo_clipping(
    low: float | None = 0.16,
    high: float | None = 0.2,
    ratio_max: float | None = 10.0,
    minibatches: int = 1,
    group_size: int = 8,
) -> Recipe:
    r"""Dynamic Clipping Policy Optimization: bounds from the old probability of the token, advantages from all visits
    to the prompt.

    .. math:: lo = \tfrac12 + \tfrac12\sqrt{\max(1 - 4\epsilon_l/q, 0)},\qquad hi = \min\big(\tfrac12 + \tfrac12\sqrt{1 + 4\epsilon_h/q},\, c\big),\qquad
              L = \sum_i\frac1{|y_i|}\sum_t\max(-rA, -\mathrm{clip}(r, lo, hi)A)

    q = :math:`\pi_{old}(y_{i,t})`: rare tokens may move far, common ones little. c = ``ratio_max`` also ends the loss
    of bad tokens (dual clip). The reward is standardised by this visit to the prompt and by all of them so far, and the
    smaller advantage counts, so that a group with equal rewards still teaches. Losses are averaged in a response and
    summed over responses. No KL, no dynamic sampling, no length penalty. Defaults: the paper's table; the authors' run
    script has 0.2 and 0.28. Our reading: the sum runs over the mini-batch.
    """
    return dapo(minibatches=minibatches).replace(
        rollout=Group(size=group_size),
        shape=(),
        filter=(),
        advantage=SmoothNormalise(),
        memory=VisitMoments(),
        surrogate=PPOClip(low=low, high=high, bounds=ProbabilityBounds(cap=ratio_max), dual=ratio_max),
        aggregate=SeqSumTokenMean(),
    )
