"""S-GRPO."""

from __future__ import annotations

from policyopt.methods.group.grpo import grpo
from policyopt.parts.exits import SerialReward
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rollout.exits import EarlyExits


@method(parent=grpo, arxiv="2505.07686", confidence="secondary")
def s_grpo(
    decay: float = 0.5,
    exits: int = 7,
    low: float | None = 0.2,
    high: float | None = 0.2,
    kl_coef: float = 0.0,
    epochs: int = 1,
) -> Recipe:
    r"""A serial group: one thought, answers forced at several of its places, and the earlier a right one the better.

    .. math:: R_i = 1[\text{right}]\,d^{N_i-1},\qquad A_i = \frac{R_i - \mathrm{mean}}{\mathrm{std} + \epsilon}

    N_i counts the right answers up to and with exit i; the whole response is the last. The words that close a thought
    are read, never trained on. Source: arXiv:2505.07686, after third parties. Our reading: every row is a response of its
    own, so the beginning of a thought is trained in each; std as in GRPO, no KL; 7 exits, so that a
    group has 8 rows, where the authors have 8.
    """
    return grpo(low, high, kl_coef=kl_coef, epochs=epochs).replace(
        rollout=EarlyExits(size=exits + 1, exits=exits), shape=(SerialReward(decay=decay),)
    )
