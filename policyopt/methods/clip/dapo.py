"""DAPO."""

from __future__ import annotations

from policyopt.claims import Claim, Effect
from policyopt.methods.group.grpo import grpo
from policyopt.parts import Correctness, LengthReward, MixedOutcomes, TokenMean
from policyopt.recipe import Recipe, Update
from policyopt.registry import method
from policyopt.sources.draw import Group


def overlong(share: float = 0.2) -> LengthReward:
    r"""Soft overlong punishment: a reward that falls linearly from 0 to -1 over the last ``share`` of the token budget.

    .. math:: \mathrm{clip}\Big(\frac{(L_{max} - L_c) - |y|}{L_c}, -1, 0\Big),\qquad L_c = share \cdot L_{max}

    Source: DAPO, arXiv:2503.14476, eq. 13, with 4,096 of 20,480 tokens. The budget is the run's (``batch.budget``).
    """
    return LengthReward(start=1 - share, right=(0.0, -1.0), wrong=(0.0, -1.0))


@method(
    parent=grpo,
    arxiv="2503.14476",
    code="verl-project/verl-recipe",
    confidence="paper",
    claim=Claim(
        "Where many prompts are always or never solved, those that are neither make every group of a batch teach something, and "
        "as many steps lead further.",
        "mixed-difficulty",
        (Effect("signal/groups", "higher", 0.2), Effect("accuracy", "higher", 0.02)),
        both={"recipe.update.minibatches": 4},
        theirs={"kl-coef": 0.0},
    ),
)
def dapo(
    low: float | None = 0.2,
    high: float | None = 0.28,
    overlong_share: float = 0.2,
    reward_correct: float = 1.0,
    reward_wrong: float = -1.0,
    rounds: int = 10,
    minibatches: int = 1,
    group_size: int = 8,
) -> Recipe:
    r"""Four repairs of GRPO for long reasoning: a higher upper bound, dynamic sampling, a token-mean loss, a soft
    length penalty.

    .. math:: L = \frac{1}{\sum_i|y_i|}\sum_i\sum_t\max(-r_{i,t}A_i, -\mathrm{clip}(r_{i,t}, 1-\epsilon_{low}, 1+\epsilon_{high})A_i)

    Only prompts with both right and wrong answers are kept; prompts are drawn until the batch is full, at most
    ``rounds`` times. The reward is +1 or -1, minus a penalty that grows to 1 over the last ``overlong_share`` of the
    budget. No KL. Source: arXiv:2503.14476, eq. 8 to 13. Defaults from section 4.1, where 20 % of the budget is the
    soft margin; the paper has groups of 16 and 16 updates per rollout (``minibatches``). Our reading: the divisor
    counts the tokens of the mini-batch.
    """
    return grpo(low, high, kl_coef=0.0).replace(
        source=Group(size=group_size, rounds=rounds),
        shape=(Correctness(right=reward_correct, wrong=reward_wrong), overlong(share=overlong_share)),
        filter=(MixedOutcomes(),),
        aggregate=TokenMean(),
        update=Update(minibatches=minibatches),
    )
