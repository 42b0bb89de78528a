"""DR-PO."""

from __future__ import annotations

from policyopt.claims import Claim, Effect
from policyopt.methods.critic.ppo import ppo
from policyopt.parts import TruncatedReward
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.sources.draw import DatasetReset


@method(
    parent=ppo,
    arxiv="2404.08495",
    code="Cornell-RL/drpo",
    confidence="code",
    claim=Claim(
        "Begun inside a reference, responses reach rewards that PPO never finds by itself.",
        "sparse-hard",
        (Effect("accuracy", "higher", 0.1),),
        both={"epochs": 1},
    ),
)
def dr_po(
    reset: float = 1.0,
    low: float | None = 0.2,
    high: float | None = 0.2,
    clip_value: float | None = 0.2,
    vf_coef: float = 0.1,
    kl_coef: float = 0.05,
    lam: float = 0.95,
    epochs: int = 4,
    missing_end: float | None = -1.0,
    group_size: int = 1,
) -> Recipe:
    r"""Dataset Reset Policy Optimization: PPO whose responses start in the middle of a reference, so that it must only
    learn to finish.

    .. math:: L = -\frac{1}{\sum_{i,t} w_{i,t}}\sum_{i,t} w_{i,t}\min(r_{i,t}A_{i,t},
              \mathrm{clip}(r_{i,t}, 1\pm\epsilon)A_{i,t}) + c_v L_V,\qquad w_{i,t} = 1[t > h_i]

    With probability ``reset`` (beta) the first h tokens of the worked solution are given, h uniform in 1 to its length
    minus 1. A response without an end token is worth ``missing_end``; with None it keeps the judge's score, and with
    reset = 0 besides, the method is PPO. Source: arXiv:2404.08495, defaults from the authors' code. Our reading:
    policy, KL and critic count the generated tokens only, as in the paper's algorithm (the code pays KL on the others,
    trains the critic on them, and divides by the padded width); rewards are not whitened.
    """
    recipe = ppo(low, high, clip_value, vf_coef, kl_coef, lam=lam, epochs=epochs)
    ends = () if missing_end is None else (TruncatedReward(reward=missing_end),)
    return recipe.replace(source=DatasetReset(size=group_size, share=reset), shape=(*ends, *recipe.shape))
