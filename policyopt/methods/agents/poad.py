"""POAD."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.groups import whiten
from policyopt.methods.critic.ppo import ppo
from policyopt.part import Fraction, Positive, part
from policyopt.parts import GAE, ClippedValueLoss
from policyopt.parts.advantage.gae import Cut, gae
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch, masked
from policyopt.turns import at_ends, on_turns, turns_there


def between_actions(batch: Batch, gamma: float) -> Tensor:
    """[N, T] the discount from each token of the policy to its next one: gamma where an action ends, 1 inside of it."""
    there = turns_there(batch).to(batch.mask)
    return 1 - (1 - gamma) * at_ends(batch, there)


def action_gae(batch: Batch, gamma: float, lam: float, cut: Cut) -> Tensor:
    """[N, T] advantages with the reward of each action on its last token and no discount inside of actions."""
    return gae(on_turns(batch), between_actions(batch, gamma), lam, cut)


@part
class ActionGAE(GAE):
    r"""Generalised advantage estimation that discounts between the actions of an episode and not between the tokens of one.

    .. math:: \delta_k^j = \begin{cases}V_k^{j+1} - V_k^j & j < J_k\\ r_k + \gamma V_{k+1}^1 - V_k^j & j = J_k\end{cases},\qquad
              \hat A_k^j = \begin{cases}\delta_k^j + \lambda\hat A_k^{j+1} & j < J_k\\ \delta_k^j + \gamma\lambda\hat A_{k+1}^1 & j = J_k\end{cases}

    Action k is the k-th turn, of J_k tokens, r_k what the environment gave for it. Nothing follows the last action of an episode
    that has ended. Of one that was cut off the value after it is taken to be that before its last token (``cut``), in the place of the value of a
    state that nobody has seen. Source: POAD, arXiv:2405.15821, and morning9393/ADRL, whose advantages are standardised with ddof 0.
    """

    gamma: Fraction = 0.95
    """Discount per action."""
    cut: Cut = "hold"
    """What follows the last token of an episode that was cut off: nothing (``end``), or the value before it (``hold``)."""
    ddof: Literal[0, 1] = 0
    """Delta degrees of freedom of the whitening."""

    def __call__(self, batch: Batch) -> Tensor:
        raw = action_gae(batch, self.gamma, self.lam, self.cut)
        if not self.whiten:
            return raw
        return whiten(raw, weight=batch.own(), ddof=self.ddof, variance_eps=self.whiten_eps) * batch.mask


@part
class ActionValueLoss(ClippedValueLoss):
    r"""The pessimistic clipped Huber error of a critic that discounts between actions alone.

    .. math:: c\max\big(H_\delta(v - G),\; H_\delta(\mathrm{clip}(v, V - \epsilon, V + \epsilon) - G)\big),\qquad G = \hat A + V

    A-hat is that of :class:`ActionGAE`. With lambda 1 the target of every token is the discounted return from its action on.
    Source: POAD, arXiv:2405.15821, and morning9393/ADRL.
    """

    gamma: Fraction = 0.95
    """Discount per action."""
    cut: Cut = "hold"
    """What follows the last token of an episode that was cut off."""
    delta: Positive = 10.0
    """Where H goes over from a square (half of it) to a straight line."""

    def target(self, batch: Batch) -> Tensor:
        found = action_gae(batch, self.gamma, self.lam, self.cut) + masked(batch.old_value, batch.mask)
        return self.learned(batch) * found

    def __call__(self, batch: Batch) -> Tensor:
        error = self._huber(batch.value - batch.returns)
        if self.clip is not None:
            clipped = torch.clamp(batch.value, batch.old_value - self.clip, batch.old_value + self.clip)
            error = torch.maximum(error, self._huber(clipped - batch.returns))
        return self.coef * masked(error, self.learned(batch))

    def _huber(self, x: Tensor) -> Tensor:
        return torch.where(x.abs() <= self.delta, 0.5 * x**2, self.delta * (x.abs() - 0.5 * self.delta))


@method(
    parent=ppo,
    arxiv="2405.15821",
    code="morning9393/ADRL",
    confidence="code",
    claim=Claim(
        "Discounting between actions and not inside of them gives each token its own credit without a price on long actions: PPO "
        "learns more from as many episodes.",
        "maze",
        (Effect("accuracy", "higher", 0.02),),
        both={"steps": 10},
        theirs={"gamma": 0.95, "epochs": 1, "kl-coef": 0.0},
    ),
)
def poad(
    gamma: float = 0.95, lam: float = 0.95, low: float = 0.2, high: float = 0.2, clip_value: float | None = 0.2, vf_coef: float = 0.5,
    entropy_coef: float = 0.01, epochs: int = 1, minibatches: int = 1, group_size: int = 1,
) -> Recipe:  # fmt: skip
    r"""Policy Optimization with Action Decomposition: token-level PPO for agents whose discount counts actions, not tokens.

    .. math:: V_k^j \leftarrow V_k^{j+1}\;(j < J_k),\qquad V_k^{J_k} \leftarrow r_k + \gamma V_{k+1}^1

    Inside of an action the critic backs up without discount and without reward, so that the best policy over tokens is the best one
    over actions, however long these are. The advantage is that of :class:`ActionGAE`, the rest PPO's clipped surrogate with an entropy bonus
    and no KL. Source: arXiv:2405.15821, and morning9393/ADRL: gamma 0.95 to 0.99, lambda 0.95, entropy 0.01, 1 to 5 epochs. Our reading:
    an action is a turn; ``vf_coef`` 0.5 (the authors' critic has an optimiser of its own), delta 10. Their stop at a KL of 0.02 is left out.
    """
    recipe = ppo(
        low, high, kl_coef=0.0, entropy_coef=entropy_coef, epochs=epochs, minibatches=minibatches, group_size=group_size
    )
    return recipe.replace(
        advantage=ActionGAE(gamma=gamma, lam=lam),
        critic=ActionValueLoss(coef=vf_coef, clip=clip_value, gamma=gamma, lam=lam),
    )
