"""GSPO."""

from __future__ import annotations

from typing import Literal

from policyopt.claims import Claim, Effect
from policyopt.methods.group.grpo import grpo
from policyopt.parts import SequenceRatio, SequenceRatioPerToken
from policyopt.recipe import Recipe, Update
from policyopt.registry import method


@method(
    parent=grpo,
    arxiv="2507.18071",
    confidence="secondary",
    claim=Claim(
        "One ratio, and one clip, for a response: training is more stable than with those of single tokens, and "
        "learns more.",
        "stale",
        (Effect("drop", "lower", 0.01), Effect("accuracy", "higher", 0.02)),
        ours={"minibatches": 1},
        theirs={"kl-coef": 0.0},
    ),
)
def gspo(
    low: float | None = 3e-4,
    high: float | None = 4e-4,
    level: Literal["sequence", "token"] = "sequence",
    minibatches: int = 4,
    group_size: int = 8,
) -> Recipe:
    r"""Group Sequence Policy Optimization: one importance ratio, and one clip, for each response.

    .. math:: s_i = \exp\Big(\frac1{|y_i|}\sum_t\log\frac{\pi_\theta}{\pi_{old}}(y_{i,t})\Big),\qquad
              L = \frac1N\sum_i\max(-s_iA_i, -\mathrm{clip}(s_i, 1-\epsilon_l, 1+\epsilon_h)A_i)

    The reward belongs to the response, so the correction should too; the bounds are small because a mean of
    log-ratios is. ``level="token"`` is GSPO-token: the value of s_i with the gradient of each token, for advantages
    that differ in a response. Source: arXiv:2507.18071, eq. 5 to 7 and 14; bounds and four mini-batches from section
    5.1. No KL.
    """
    return grpo(low, high, kl_coef=0.0, group_size=group_size).replace(
        ratio=SequenceRatio() if level == "sequence" else SequenceRatioPerToken(),
        update=Update(minibatches=minibatches),
    )
