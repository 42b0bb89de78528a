"""CLPO."""

from __future__ import annotations

from typing import Literal

from policyopt.methods.group.grpo import grpo
from policyopt.parts import BySource, KLByDifficulty, MixedOutcomes, TokenMean
from policyopt.recipe import Recipe, Update
from policyopt.registry import method
from policyopt.rollout.restructure import Restructured
from policyopt.rollout.rewrite import PolicyRewriter, ReorderedSum


@method(parent=grpo, arxiv="2509.25004", code="csuking/CLPO", confidence="code")
def clpo(
    hard_upper: float = 0.3,
    medium_upper: float = 0.7,
    rewrite: Literal["both", "hard", "medium", "none"] = "both",
    rewriter: Literal["policy", "reorder"] = "policy",
    low: float | None = 0.2,
    high: float | None = 0.2,
    kl_coef: float = 0.001,
    kl_scale_hard: float = 0.5,
    kl_scale_other: float = 1.0,
    minibatches: int = 1,
    group_size: int = 4,
) -> Recipe:
    r"""Curriculum-guided Learning for Policy Optimization: the policy rewrites what it fails at, and learns from its
    answers to that too.

    .. math:: L = \frac{1}{\sum_i|y_i|}\sum_{i,t}\max(-r_{i,t}A_i, -\mathrm{clip}(r_{i,t}, 1\pm\epsilon)A_i)
              + \beta c_i\,k3_{i,t},\qquad c_i = c_h\ (acc_i \le \tau_h),\ c_n \text{ elsewhere}

    acc is the share of right answers to a prompt. Up to ``hard_upper`` the question is rewritten to be simpler, up to
    ``medium_upper`` to be different, and a second group answers the rewrite, judged against the original answer. Each
    group is compared with itself and kept where it has right and wrong answers: the answers to a failed prompt go, those
    to its rewrite may stay. Source: arXiv:2509.25004, first version, and the authors' code, with 8 updates per rollout
    (``minibatches``). The second version trains the rewriting too, which the code does not have. Our reading: what the
    judge calls right counts, where the code takes a reward above 0. A small policy writes few rewrites that can be
    learned from: the metric ``rollout/rewrites_mixed`` counts them. ``rewriter="reorder"`` puts the terms of sums in
    another order instead.
    """
    writers = {"policy": PolicyRewriter(), "reorder": ReorderedSum()}
    penalty = KLByDifficulty(coef=kl_coef, upper=hard_upper, hard=kl_scale_hard, other=kl_scale_other)
    return grpo(low, high, kl_coef=0.0).replace(
        rollout=Restructured(
            size=group_size, hard=hard_upper, medium=medium_upper, rewrite=rewrite, rewriter=writers[rewriter]
        ),
        filter=(MixedOutcomes(per_source=True),),
        advantage=BySource(),
        aggregate=TokenMean(),
        regularizers=(penalty,) if kl_coef else (),
        update=Update(minibatches=minibatches),
    )
