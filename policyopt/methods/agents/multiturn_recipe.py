"""The multi-turn recipe."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch

from policyopt.claims import Claim, Effect
from policyopt.groups import group_max
from policyopt.methods.critic.ppo import ppo
from policyopt.part import Count, Shape, Unit, part
from policyopt.parts import Correctness, Normalise
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch
from policyopt.sources.draw import Group
from policyopt.turns import on_turns, turn_rewards, turns_there


@part
class TurnShares(Shape):
    r"""The reward of each turn on its last token, scaled so that a won episode is worth as much as the judge's word.

    .. math:: \rho_{i,p_{i,k}} = \frac{e_{i,k}}{D_i},\qquad D_i = \max(1, \#\{k: e_{i,k} > 0\}) \text{ if the episode was won, else } \max(1, M)

    e [N, K] is what the environment gave for each turn, p the last token of the turn; there is no further reward at the end. With turn rewards
    of 0 and 1 those of a won episode add up to 1, those of a lost one to at most 1. What an episode is worth beyond its turns (a judge's
    score) counts to its last turn. Source: arXiv:2510.01132, and pearls-lab/meow-tea-taro. Our reading: an episode is won where it is
    called right; where M is not given it is the most turns of an episode of the prompt that earned something.
    """

    most: Count | None = None
    """M, the largest number of turn rewards that the task has; unset: the largest that was seen for the prompt."""

    needs: ClassVar[frozenset[str]] = frozenset({"correct"})
    unit: ClassVar[Unit] = "group"

    def __call__(self, batch: Batch) -> Batch:
        given = torch.where(turns_there(batch), turn_rewards(batch.replace(token_reward=None)), 0.0)
        earned = (given > 0).sum(1).to(given)
        most = group_max(earned, batch.group) if self.most is None else torch.full_like(earned, self.most)
        share = given / torch.where(batch.correct > 0.5, earned, most).clamp(min=1)[:, None]
        return on_turns(batch.replace(reward=share.sum(1), turn_reward=share))


_WITHOUT_CRITIC = {
    "group": Normalise(centre="group", scale="group"),
    "leave-one-out": Normalise(centre="leave-one-out", scale="none"),
}


@method(
    parent=ppo,
    arxiv="2510.01132",
    code="pearls-lab/meow-tea-taro",
    confidence="code",
    claim=Claim(
        "A reward for each turn that leads on makes token-level PPO learn faster than one for the whole episode at its end.",
        "shop",
        (Effect("accuracy", "higher", 0.02),),
        against="multiturn-recipe",
        both={"steps": 10},
        theirs={"placement": "sparse"},
    ),
)
def multiturn_recipe(
    baseline: Literal["critic", "group", "leave-one-out"] = "critic", placement: Literal["dense", "sparse"] = "dense", most: int | None = None,
    low: float = 0.2, high: float = 0.2, kl_coef: float = 0.01, gamma: float = 1.0, lam: float = 0.95, group_size: int = 8,
) -> Recipe:  # fmt: skip
    r"""Token-level PPO on whole episodes, with the rewards of turns on the tokens that end them; what others say is skipped.

    .. math:: \delta_t = \rho_t + \gamma V_{t^+} - V_t,\qquad \hat A_t = \delta_t + \gamma\lambda\hat A_{t^+}

    t+ is the next token of the policy, so that an observation in between takes no time. rho is that of :class:`TurnShares` ("dense"),
    or 1 on the last token of an episode that was won ("sparse"), less the KL to the reference. ``baseline`` "group" (GRPO) and "leave-one-out" (RLOO) compare
    the sums of episodes instead, without a critic; where rewards stand then makes no difference. The loss is the clipped surrogate, a mean
    over tokens. Source: arXiv:2510.01132, and pearls-lab/meow-tea-taro: clip 0.2, gamma 1, KL 0.01, temperature 0.7. Our reading:
    lambda 0.95; one pass over the batch; groups of 8, for PPO too.
    """
    recipe = ppo(low, high, kl_coef=kl_coef, gamma=gamma, lam=lam, epochs=1)
    placed = TurnShares(most=most) if placement == "dense" else Correctness(right=1.0, wrong=0.0)
    recipe = recipe.replace(source=Group(size=group_size, temperature=0.7), shape=(placed, *recipe.shape))
    return recipe if baseline == "critic" else recipe.replace(advantage=_WITHOUT_CRITIC[baseline], critic=None)
