"""Unlikeliness reward."""

from __future__ import annotations

from policyopt.methods.group.grpo import grpo
from policyopt.parts import MixedOutcomes, RankDiscount
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rollout.group import Group


@method(parent=grpo, arxiv="2506.02355", code="AndreHe02/rewarding-unlikely-release", confidence="code")
def unlikeliness(
    beta_rank: float = 0.25,
    length_normalised: bool = True,
    low: float | None = 0.2,
    high: float | None = 0.2,
    kl_coef: float = 0.1,
    epochs: int = 2,
    rounds: int = 10,
    group_size: int = 8,
) -> Recipe:
    r"""GRPO with less reward for right answers that were likely already, against the sharpening of the distribution.

    .. math:: \tilde R_i = R_i\Big(1 - \beta_{rank}\,\frac{k_i}{G}\Big),\qquad
              A_i = \frac{\tilde R_i - \mathrm{mean}(\tilde R)}{\mathrm{std}(\tilde R) + \epsilon}

    k_i is the rank of row i among the G rows of its group by mean log-probability, 0 for the least likely. Prompts that
    were answered all right or all wrong are left out and others drawn, at most ``rounds`` times. Two epochs have a
    like effect: what was likely is clipped first. Source: arXiv:2506.02355; formula and defaults from the authors' code,
    with groups of 32 there. The text counts ranks from the other end, a shift by beta/G.
    """
    return grpo(low, high, kl_coef=kl_coef, epochs=epochs).replace(
        rollout=Group(size=group_size, rounds=rounds),
        shape=(RankDiscount(coef=beta_rank, length_normalised=length_normalised),),
        filter=(MixedOutcomes(),),
    )
