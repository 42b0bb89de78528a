"""BAPO."""

from __future__ import annotations

from typing import Literal

from policyopt.methods.group.grpo import grpo
from policyopt.parts import BalancedBounds, PPOClip, TokenMean
from policyopt.recipe import Recipe, Update
from policyopt.registry import method


@method(parent=grpo, arxiv="2510.18927", code="WooooDyy/BAPO", confidence="code")
def bapo(
    target: float = 0.4,
    search: Literal["paper", "code"] = "paper",
    measure: Literal["gradient-share", "value-share", "value-ratio"] = "gradient-share",
    low_start: float = 0.6,
    low_max: float = 0.9,
    low_step: float = 0.02,
    high_start: float = 1.2,
    high_max: float = 3.0,
    high_step: float = 0.05,
    dual_clip: float | None = None,
    minibatches: int = 1,
    group_size: int = 8,
) -> Recipe:
    r"""Balanced Policy Optimization: for every update, the bounds at which good tokens supply a target share of the
    signal.

    .. math:: \rho(lo, hi) = \frac{\sum_{A>0,\,r\le hi} rA}{\sum_{A>0,\,r\le hi} rA + \sum_{A<0,\,r\ge lo} r|A|} \ge \rho_0,\qquad
              L = \frac1{\sum_i|y_i|}\sum_{i,t}\max(-rA, -\mathrm{clip}(r, lo, hi)A)

    With stale data, bad tokens rule the update, and a fixed clip removes the rare good ones. The bounds are ratios;
    they start at ``low_start`` and ``high_start`` and move by steps up to ``low_max`` and ``high_max``, the upper one
    first (``search="paper"``, algorithm 1) or the lower one (``"code"``). Where the target is met at the start this is
    GRPO with asymmetric bounds. No KL. Defaults: the paper's; the authors' recipe has ``search="code"``,
    ``measure="value-ratio"``, target 1 and ``dual_clip`` 3. Our reading: the share of the gradient, which fits the
    stated purpose; raising a lower bound adds to the value sums of bad tokens.
    """
    bounds = BalancedBounds(
        target=target, search=search, measure=measure, low_max=low_max, high_max=high_max,
        low_step=low_step, high_step=high_step,
    )  # fmt: skip
    return grpo(kl_coef=0.0, group_size=group_size).replace(
        surrogate=PPOClip(low=round(1 - low_start, 12), high=round(high_start - 1, 12), bounds=bounds, dual=dual_clip),
        aggregate=TokenMean(),
        update=Update(minibatches=minibatches),
    )
