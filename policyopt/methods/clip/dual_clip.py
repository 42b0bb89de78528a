"""Dual-clip PPO."""

from __future__ import annotations

from policyopt.claims import Claim, Effect
from policyopt.methods.critic.ppo import ppo
from policyopt.parts import PPOClip
from policyopt.recipe import Recipe
from policyopt.registry import method


@method(
    parent=ppo,
    arxiv="1912.09729",
    confidence="secondary",
    claim=Claim(
        "On batches far from the policy, a ceiling on the loss of bad tokens keeps PPO from being ruled by a few of them.",
        "stale",
        (Effect("accuracy", "higher", 0.02),),
        both={"kl-coef": 0.0, "epochs": 1},
    ),
)
def dual_clip(
    low: float | None = 0.2,
    high: float | None = 0.2,
    dual_clip: float | None = 3.0,
    kl_coef: float = 0.05,
    epochs: int = 4,
    minibatches: int = 1,
    group_size: int = 1,
) -> Recipe:
    r"""PPO with a ceiling on the loss of bad tokens: a stale token that has become likely cannot rule the batch.

    .. math:: \ell = \max(-rA, -\mathrm{clip}(r, 1-\epsilon_l, 1+\epsilon_h)A),\qquad A < 0:\ \ell \leftarrow \min(\ell, -cA)

    c = ``dual_clip``; None is PPO. For a negative advantage the loss grows up to r = c and has no gradient beyond; for
    a positive one nothing changes. Default c = 3 from arXiv:1912.09729, which verl takes in every run. TRL's ``delta``
    is the same, written as a cap on the unclipped ratio.
    """
    recipe = ppo(low, high, kl_coef=kl_coef, epochs=epochs, minibatches=minibatches, group_size=group_size)
    return recipe.replace(surrogate=PPOClip(low=low, high=high, dual=dual_clip))
