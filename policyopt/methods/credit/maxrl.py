"""MaxRL."""

from __future__ import annotations

from policyopt.claims import Claim, Effect
from policyopt.methods.group.grpo import grpo
from policyopt.parts import Normalise, TokenMean
from policyopt.recipe import Recipe
from policyopt.registry import method


@method(
    parent=grpo,
    arxiv="2602.02710",
    code="tajwarfahim/maxrl",
    confidence="code",
    claim=Claim(
        "Maximum likelihood weighs rare successes most: more prompts are solved within a few attempts, and as many at the first.",
        "mixed-difficulty",
        (Effect("pass@4", "higher", 0.01), Effect("accuracy", "higher", -0.01)),
        theirs={"kl-coef": 0.0},
    ),
)
def maxrl(low: float | None = 0.2, high: float | None = 0.2, eps: float = 1e-6, group_size: int = 8) -> Recipe:
    r"""Maximum Likelihood RL: the centred reward over the group's mean reward, so that rare successes count most.

    .. math:: A_i = \frac{R_i - \bar R}{\bar R + \epsilon},\qquad A_i = 0 \text{ where } \bar R = 0

    R-bar is the mean over the N responses to a prompt. With rewards of 0 and 1 the expected gradient is that of
    :math:`-\sum_{k<N} (1-p)^k / k`, the expansion of log p, the log-likelihood of a right answer: a prompt solved with
    probability p weighs about 1/p, where REINFORCE has 1. Rewards must not be negative. Source: arXiv:2602.02710 and
    the authors' code; their groups have 16 responses, token-mean, no KL. Our reading: a group without success has no
    gradient (the code's ``maxrl``; its ``vr_cond`` keeps -1 there), and a group of one has none either.
    """
    return grpo(low, high, kl_coef=0.0, group_size=group_size).replace(
        advantage=Normalise(centre="group", scale="group", spread="mean", eps=eps),
        aggregate=TokenMean(),
    )
