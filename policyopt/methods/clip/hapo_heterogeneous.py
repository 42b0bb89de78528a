"""HAPO, the heterogeneous one."""

from __future__ import annotations

from policyopt.methods.clip.dapo import dapo
from policyopt.parts import EntropyBounds, EntropyRedistribution, PPOClip, TokenNormalise
from policyopt.recipe import Recipe
from policyopt.registry import method


@method(parent=dapo, arxiv="2509.16591", code="starriver030515/HAPO", confidence="code")
def hapo_heterogeneous(
    low: float | None = 0.2,
    high: float | None = 0.2,
    entropy_pivot: float = 0.8,
    clip_alpha: float = 1.0,
    adv_beta: float = 1.0,
    fallback_threshold: float | None = 5.0,
    dual_clip: float | None = None,
    overlong_share: float = 0.4,
    rounds: int = 10,
    minibatches: int = 1,
    group_size: int = 8,
) -> Recipe:
    r"""DAPO that treats every token by its entropy: wider bounds, and advantages that are strengthened or muted.

    .. math:: lo = 1 - \epsilon_l(1 + \alpha\max(-\hat h, 0)),\qquad hi = 1 + \epsilon_h(1 + \alpha\max(\hat h, 0)),\qquad
              A' = A\,(1 + \beta\hat h)\ \text{ if }\ (\hat h > 0) \ne \text{neutral, else } A

    h in [-1, 1] is the position of the token's entropy in the batch, 0 at the quantile ``entropy_pivot``; a token is
    neutral while its ratio has not gone half of the way to a bound. A is the reward over statistics of the group in
    which every token counts once (population std, eps 1e-6); a group with an |A| of ``fallback_threshold`` takes
    GRPO's. Defaults from the authors' scripts, which also have ``dual_clip`` 10 and 16 responses.

    Our reading: confident tokens have h < 0, as the text says; the released code turns the sign. The sampler's
    temperature, which the paper varies with the entropy of each position, is the recipe's own constant here.
    """
    bounds = EntropyBounds(alpha=clip_alpha, pivot=entropy_pivot)
    recipe = dapo(
        low, high, overlong_share=overlong_share, rounds=rounds, minibatches=minibatches, group_size=group_size
    )
    return recipe.replace(
        advantage=TokenNormalise(fallback=fallback_threshold),
        surrogate=PPOClip(low=low, high=high, bounds=bounds, dual=dual_clip),
        weight=(EntropyRedistribution(low=low, high=high, bounds=bounds, beta=adv_beta),),
    )
