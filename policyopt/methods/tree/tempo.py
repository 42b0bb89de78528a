"""TEMPO."""

from __future__ import annotations

import math

from policyopt.methods.group.grpo import grpo
from policyopt.parts.prefix import PrefixAdvantage
from policyopt.parts.regularize import Estimator
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rollout.tree import Levels, Tree


@method(parent=grpo, arxiv="2509.18314", confidence="secondary")
def tempo(
    td_coef: float = 1.0,
    widths: tuple[int, ...] = (),
    segment: int = 16,
    low: float | None = 0.2,
    high: float | None = 0.2,
    kl_coef: float = 0.04,
    kl: Estimator = "k3",
    epochs: int = 1,
    group_size: int = 8,
) -> Recipe:
    r"""Tree-Estimated Mean Prefix Value for Policy Optimization: the responses of a group form a prefix tree, whose
    branches tell which tokens mattered.

    .. math:: A_{i,t} = \frac{(R_i - \mathrm{mean}) + c\,\delta_{i,t}}{\mathrm{std} + \epsilon},\qquad
              \delta_{i,t} = V(y_{i,\le t}) - V(y_{i,<t}),\qquad V(s) = \mathrm{mean}_{j:\,y_j\text{ begins with }s} R_j

    delta is 0 but on tokens that leave a beginning after which the group has several next tokens. Independent responses
    share beginnings by chance; with ``widths`` they are drawn as a tree with so many children at each depth, of
    ``segment`` tokens each, and ``group_size`` is the product of the widths. Every response keeps its tokens, so what
    several share counts once for each of them, with its own outcome. Source: arXiv:2509.18314, from third parties'
    descriptions. Our reading: c = 1, GRPO's clip and KL.
    """
    recipe = grpo(low, high, kl_coef, kl, epochs, group_size).replace(advantage=PrefixAdvantage(td_coef=td_coef))
    if not widths:
        return recipe
    return recipe.replace(rollout=Tree(size=math.prod(widths), branching=Levels(widths=widths, segment=segment)))
