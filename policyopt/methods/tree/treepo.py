"""TreePO."""

from __future__ import annotations

from typing import Literal

from policyopt.methods.clip.dapo import dapo
from policyopt.parts import MixedOutcomes, PPOClip
from policyopt.parts.subtree import SubtreeAdvantage
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rollout.branching import Segments
from policyopt.rollout.tree import Tree


@method(parent=dapo, arxiv="2508.17445", code="multimodal-art-projection/TreePO", confidence="code")
def treepo(
    weight: Literal["average", "size"] = "average",
    drop_flat: bool = False,
    depth: int = 14,
    segment: int | None = None,
    fan_out: int = 2,
    restart: Literal["random", "least-likely", "block"] = "random",
    low: float | None = 0.2,
    high: float | None = 0.28,
    dual: float | None = 10.0,
    overlong_share: float = 0.07,
    rounds: int = 10,
    minibatches: int = 1,
    group_size: int = 16,
) -> Recipe:
    r"""Responses grow in a tree, segment by segment, and each has its mean advantage over the nested trees that it is
    part of.

    .. math:: \tilde A_i = \frac1{n_i}\sum_d \big(R_i - \mathrm{mean}_{j \in S_d(i)} R_j\big),\qquad
              A_{i,t} = (\tilde A_i - \mu)/\sqrt{\sigma^2 + 10^{-8}}

    S_d(i) are the leaves that share the first d segments of leaf i; trees that it is alone in are left out below the
    root. mu and sigma run over the response tokens of the batch. ``size`` weights the trees by their leaves. Segments
    have ``segment`` tokens, or the budget over ``depth``, as 7168 over 14 in the paper; ``restart`` says where a path that
    has ended is cut to fill up the leaves. DAPO's loss with a dual clip, no
    KL. Every leaf is a row with its whole path: a shared token counts once for each leaf behind it, with that leaf's
    advantage. Source: arXiv:2508.17445; defaults from the authors' code (the soft margin is 512 of 7168 tokens). Our
    reading: DAPO's reward of 1 or -1.
    """
    return dapo(overlong_share=overlong_share, minibatches=minibatches).replace(
        rollout=Tree(
            size=group_size,
            rounds=rounds,
            branching=Segments(depth=depth, segment=segment, fan_out=fan_out, restart=restart),
        ),
        filter=(MixedOutcomes(),),
        advantage=SubtreeAdvantage(weight=weight, drop_flat=drop_flat),
        surrogate=PPOClip(low=low, high=high, dual=dual),
    )
