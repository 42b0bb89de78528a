"""PF-PPO."""

from __future__ import annotations

from typing import Literal

from policyopt.methods.critic.ppo import ppo
from policyopt.parts import RankWeight
from policyopt.recipe import Recipe
from policyopt.registry import method


@method(parent=ppo, arxiv="2409.06957", code="swtheing/PF-PPO-RLHF", confidence="code")
def pf_ppo(
    ranks: Literal["best", "best-random", "best-worst"] = "best-random",
    low: float | None = 0.2,
    high: float | None = 0.2,
    kl_coef: float = 0.05,
    epochs: int = 4,
    minibatches: int = 1,
    group_size: int = 4,
) -> Recipe:
    r"""PPO on the ranks of a prompt's responses that the reward model can be trusted on: the best, the worst, less of
    the middle.

    .. math:: L = \frac{1}{\sum_i|y_i|}\sum_{i,t} G\,w_{k(i)} \max(-r_{i,t}A_{i,t}, -\mathrm{clip}(r_{i,t})A_{i,t}) + c_v L_V

    w are the weights of the ranks k among the G responses to a prompt, which add up to 1: ``best`` (BoN),
    ``best-random`` (BR), ``best-worst`` (BW). Advantages come before, from all rows. Source: arXiv:2409.06957 and the
    authors' code. Our reading: weights on the loss, in the place of drawing rows with these probabilities, which is
    the same in expectation; the critic learns from all rows. Whether a reward model fits a choice of ranks is measured
    by :func:`~policyopt.parts.rank.weighted_r2`.
    """
    return ppo(low, high, kl_coef=kl_coef, epochs=epochs, minibatches=minibatches, group_size=group_size).replace(
        weight=(RankWeight(ranks=ranks),)
    )
