"""URPO."""

from __future__ import annotations

from policyopt.methods.group.grpo import grpo
from policyopt.parts.source import BySource
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rollout.referee import PlayerAndReferee


@method(parent=grpo, arxiv="2507.17515", confidence="recalled")
def urpo(
    judgings: int = 4,
    open_share: float = 0.0,
    invalid_reward: float = -1.0,
    low: float | None = 0.2,
    high: float | None = 0.2,
    kl_coef: float = 0.04,
    group_size: int = 4,
) -> Recipe:
    r"""One model is player and referee: its scores for its own candidates are trained on too, and can be the reward.

    .. math:: R^{referee} = \tau(\hat s, g) = \frac{2}{n(n-1)}\sum_{j<k}\mathrm{sign}(\hat s_j - \hat s_k)\,\mathrm{sign}(g_j - g_k)

    Verifiable prompts give the player's reward and the gold order g that the referee has to find; on an ``open_share`` of
    the prompts the referee's scores are the player's rewards. GRPO for both, each compared with its own kind. Source:
    arXiv:2507.17515, recalled, not verified. Our reading: gold orders come from the judge of the task rather than from
    preference data; raise ``open_share`` once the referee is of use.
    """
    parent = grpo(low, high, kl_coef=kl_coef, group_size=group_size)
    return parent.replace(
        rollout=PlayerAndReferee(
            size=group_size, judgings=judgings, open_share=open_share, invalid_reward=invalid_reward
        ),
        advantage=BySource(inner=parent.advantage),
    )
