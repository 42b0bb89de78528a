"""T-PPO."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.methods.critic.ppo import ppo
from policyopt.part import Unit, part
from policyopt.parts import ClippedValueLoss, SelectedWeight, Selector, TruncatedReward
from policyopt.parts.advantage.gae import GAE
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch
from policyopt.sources.draw import Windows


@part
class EarlierTokens(Selector):
    """The tokens of earlier windows: an update has been made on them already.

    Reads ``new_from``, the index [N] of each row's first new token; without it all tokens are new. Muted by a
    ``SelectedWeight``, every token trains the policy once. Source: T-PPO, arXiv:2506.15050 (token filter).
    """

    unit: ClassVar[Unit] = "row"

    def __call__(self, batch: Batch) -> Tensor:
        if batch.new_from is None:
            return torch.zeros_like(batch.mask, dtype=torch.bool)
        position = torch.arange(batch.mask.shape[1], device=batch.mask.device)
        return batch.mask.bool() & (position < batch.new_from[:, None])


@method(
    parent=ppo,
    arxiv="2506.15050",
    confidence="secondary",
    claim=Claim(
        "Learning from responses that are still being written takes less time than waiting for them, and leads as far.",
        "number_sorting",
        (Effect("seconds to target", "lower", 2.0), Effect("accuracy", "higher", -0.02)),
        ours={"windows": 3, "group-size": 1},
        theirs={"epochs": 1, "kl-coef": 0.0},
    ),
)
def t_ppo(
    low: float | None = 0.2,
    high: float | None = 0.2,
    gamma: float = 1.0,
    lam: float = 0.95,
    vf_coef: float = 0.1,
    epochs: int = 1,
    minibatches: int = 1,
    windows: int = 1,
    group_size: int = 8,
) -> Recipe:
    r"""Truncated PPO: the policy learns from responses that are still being written, the critic from finished ones.

    .. math:: \hat A_t = \sum_{k \ge 0} (\gamma\lambda)^k \delta_{t+k},\qquad \delta_t = \rho_t + \gamma V_{t+1} - V_t,\qquad
              V_l = \begin{cases}0 & \text{finished}\\ V_{l-1} & \text{truncated}\end{cases}

    Extended GAE takes a truncated response of l tokens to go on as it went, so that its end is no loss. The policy's
    loss is PPO's on tokens that no update has seen; the critic's target is the discounted return (lambda 1), on finished
    responses only. Without truncation it is PPO with these targets. Source: arXiv:2506.15050, from third parties'
    descriptions. Our reading: no clip of the value, no whitening, a truncated response earns no reward; lambda, epochs
    and the weight of the critic are PPO's. The budget is divided into ``windows`` (3 as recalled); what is not finished after
    one goes on at the next step. With one window all tokens are new, and responses that hit the budget count as
    truncated.
    """
    return ppo(low, high, kl_coef=0.0, epochs=epochs, minibatches=minibatches, group_size=group_size).replace(
        source=Windows(size=group_size, windows=windows),
        shape=(TruncatedReward(reward=0.0),),
        advantage=GAE(gamma=gamma, lam=lam, cut="hold", whiten=False),
        weight=(SelectedWeight(tokens=EarlierTokens(), inside=0.0, outside=1.0),),
        critic=ClippedValueLoss(coef=vf_coef, clip=None, gamma=gamma, lam=1.0, finished_only=True),
    )
