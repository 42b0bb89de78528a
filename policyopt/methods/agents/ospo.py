"""OSPO."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.groups import group_std, whiten
from policyopt.methods.critic.ppo import ppo
from policyopt.part import Advantage, Finite, NonNegative, Unit, part
from policyopt.parts import KL
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch
from policyopt.turns import on_tokens, turn_rewards, turns_there


@part
class SameStep(Advantage):
    r"""What a turn was worth at once, against the same turn of the other episodes of the prompt, less what it did to their
    equality.

    .. math:: A_{i,u} = \frac{x_{i,u} - \mathrm{mean}_{\mathcal I_u} x}{\mathrm{std}_{\mathcal I_u} x + \epsilon}
              - \kappa\,\big(\mathrm{std}(c^{after}_u) - \mathrm{std}(c^{before}_u)\big)

    x is the reward of turn u, I_u the episodes of the prompt that have a turn of that number, c what each episode of the
    prompt, finished ones too, has earned before and after turn u; population deviations. Nothing that comes later is counted:
    agents that are alike expect the same of the future. Source: OSPO, arXiv:2507.15351, and the authors' code (RS2002/OSPO),
    where the agents are vehicles of a fleet at the same minute.
    """

    fairness: Finite = 1.0
    """kappa."""
    eps: NonNegative = 1e-8
    """Added to the standard deviation."""

    needs: ClassVar[frozenset[str]] = frozenset({"turn_reward"})
    unit: ClassVar[Unit] = "batch"
    min_group: ClassVar[int] = 2

    def __call__(self, batch: Batch) -> Tensor:
        there, worth = turns_there(batch), turn_rewards(batch)
        earned = worth.cumsum(1)
        found = torch.zeros_like(worth)
        for u in range(worth.shape[1]):
            found[:, u] = self.at_once(worth[:, u], there[:, u], batch.group)
            found[:, u] -= self.fairness * self.apart(earned[:, u] - worth[:, u], earned[:, u], batch.group)
        return on_tokens(batch, found)

    def at_once(self, x: Tensor, acting: Tensor, group: Tensor) -> Tensor:
        """[N] the first term of a turn, from rewards [N] and which episodes have it; 0 for the others."""
        found = torch.zeros_like(x)
        found[acting] = whiten(x[acting], group[acting], eps=self.eps)
        return found

    def apart(self, before: Tensor, after: Tensor, group: Tensor) -> Tensor:
        """[N] how much further apart the episodes of a prompt are after a turn, from what they have earned [N]."""
        return group_std(after, group, 0) - group_std(before, group, 0)


@method(
    parent=ppo,
    arxiv="2507.15351",
    code="RS2002/OSPO",
    confidence="code",
    claim=Claim(
        "Where the future is the same for all, the reward of the step itself is advantage enough: less regret than by returns.",
        "bandit:4",
        (Effect("component/regret", "lower", 0.1),),
        against="grpo",
        theirs={"kl-coef": 0.0},
    ),
)
def ospo(
    fairness: float = 1.0, low: float | None = 0.2, high: float | None = 0.28, kl_coef: float = 0.0, entropy_coef: float = 0.0,
    epochs: int = 1, group_size: int = 8,
) -> Recipe:  # fmt: skip
    r"""One-Step Policy Optimization: episodes that act at the same step are the group, and the step's own reward is compared.

    .. math:: A_{i,u} = \frac{x_{i,u} - \mathrm{mean}\,x}{\mathrm{std}\,x + \epsilon} - \kappa\,\Delta_u\,\mathrm{std}(c),\qquad
              L = \max(-rA, -\mathrm{clip}(r, 1-\epsilon_l, 1+\epsilon_h)A)

    For agents that all face the same future (a bandit, a fleet): no critic, no return, no discount. kappa = ``fairness`` takes
    from all of a step what spreads their earnings apart; with 0 it is GRPO for each step by itself. The means run over tokens.
    Source: arXiv:2507.15351 and the authors' code (RS2002/OSPO), for vehicles of a fleet, not for language models: clip 0.2 and
    0.28. Their KL (0.5, to the best policy so far, once it no longer improves) and entropy bonus (0.05) are over lists of
    orders; ``kl_coef`` (k3, to the reference) and ``entropy_coef`` are those of tokens, and 0. Our reading: the same step is
    the same turn of the episodes of one prompt.
    """
    parent = ppo(low, high, kl_coef=0.0, entropy_coef=entropy_coef, epochs=epochs, group_size=group_size)
    close = (KL(coef=kl_coef, estimator="k3"),) if kl_coef else ()
    return parent.replace(
        advantage=SameStep(fairness=fairness), critic=None, regularizers=(*parent.regularizers, *close)
    )
