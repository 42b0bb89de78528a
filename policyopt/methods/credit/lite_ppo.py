"""Lite PPO."""

from __future__ import annotations

from policyopt.claims import Claim, Effect
from policyopt.methods.critic.ppo import ppo
from policyopt.parts import Normalise
from policyopt.recipe import Recipe
from policyopt.registry import method


@method(
    parent=ppo,
    arxiv="2508.08221",
    confidence="secondary",
    claim=Claim(
        "Two tricks, the spread of the whole batch and a mean over tokens, do better than GRPO where prompts are unequally hard.",
        "mixed-difficulty",
        (Effect("accuracy", "higher", 0.01),),
        against="grpo",
        theirs={"kl-coef": 0.0},
    ),
)
def lite_ppo(low: float | None = 0.2, high: float | None = 0.2, epochs: int = 1, group_size: int = 8) -> Recipe:
    r"""PPO without a critic and two tricks: centre by the prompt, scale by the batch, and a mean over all tokens.

    .. math:: A_i = \frac{R_i - \mathrm{mean}_{group}}{\mathrm{std}_{batch} + \epsilon},\qquad
              L = \frac{1}{\sum_i|y_i|}\sum_{i,t}\max(-r_{i,t}A_i, -\mathrm{clip}(r_{i,t})A_i)

    A prompt whose rewards are nearly equal keeps small advantages, which a division by its own standard deviation
    would blow up. No KL, no entropy bonus. Source: arXiv:2508.08221. Our reading: the standard deviation is that of the
    raw rewards of all rows (TRL: ``scale_rewards="batch"``), ddof 1, eps 1e-6.
    """
    return ppo(low, high, kl_coef=0.0, epochs=epochs, group_size=group_size).replace(
        advantage=Normalise(centre="group", scale="batch"), critic=None
    )
