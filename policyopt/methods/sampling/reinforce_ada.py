"""Reinforce-Ada."""

from __future__ import annotations

from typing import Literal

from policyopt.methods.aggregation.dr_grpo import dr_grpo
from policyopt.parts import Correctness, EntropyBonus, RolloutBaseline, TokenMean
from policyopt.recipe import Recipe, Update
from policyopt.registry import method
from policyopt.rollout.adaptive import UntilMixed


@method(parent=dr_grpo, arxiv="2510.04996", code="RLHFlow/Reinforce-Ada", confidence="code")
def reinforce_ada(
    stop: Literal["balanced", "positive"] = "balanced",
    round_size: int = 8,
    max_rounds: int = 4,
    threshold: float = 0.7,
    low: float | None = 0.2,
    high: float | None = 0.28,
    entropy_coef: float = 0.0,
    minibatches: int = 1,
    group_size: int = 4,
) -> Recipe:
    r"""Draw in rounds until a prompt has shown both outcomes, train on a balanced few, take the baseline from all.

    .. math:: A_i = 1[r_i > \theta] - \bar r,\qquad \bar r = \frac{\#\{j \in S : r_j > \theta\}}{|S|}

    S is all that was drawn for the prompt, at most ``max_rounds`` times ``round_size`` responses; n = ``group_size``
    are trained on, half of them successes where there are as many. ``balanced`` stops at n/2 of each outcome,
    ``positive`` at one success. PPO's clip with a token-mean, no KL. Prompts without both outcomes stay in, as in the
    authors' code. Source: arXiv:2510.04996; defaults from the authors' script (the paper adds an entropy bonus of 1e-4,
    and 4 mini-batches). Our reading: the reward itself is made 0 or 1 by the threshold.
    """
    return dr_grpo(low, high).replace(
        rollout=UntilMixed(
            size=group_size, round_size=round_size, max_rounds=max_rounds, threshold=threshold, stop=stop
        ),
        shape=(Correctness(right=1.0, wrong=0.0, threshold=threshold),),
        advantage=RolloutBaseline(clip=None),
        aggregate=TokenMean(),
        regularizers=(EntropyBonus(coef=entropy_coef),) if entropy_coef else (),
        update=Update(minibatches=minibatches),
    )
