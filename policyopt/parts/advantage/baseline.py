"""Advantages against a reward that the rollout brings."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from policyopt.part import Advantage, Fraction, Positive, Unit, part
from policyopt.rows import Batch, masked


@part
class RolloutBaseline(Advantage):
    r"""Reward minus a baseline that the rollout drew for the same prompt, discounted towards the start.

    .. math:: A_{i,t} = \gamma^{|y_i|-t}\,\mathrm{clip}(R_i - B_i, \pm c) + \rho_{i,t}

    B is ``baseline_reward``: the reward of the greedy response, or the mean over all that was drawn, rows that are not
    trained on too. t counts from 0, so even the last token is discounted once; rho is the token reward of that token
    alone (a KL penalty is not accumulated). Sources: ReMax, arXiv:2310.10505, and the authors' trainer
    (liziniu/ReMax), the paper has gamma = 1; Reinforce-Ada, arXiv:2510.04996 (mean of the pool, no clip).
    """

    gamma: Fraction = 1.0
    """Discount per token."""
    clip: Positive | None = 5.0
    """Bound on the difference of rewards; None for no bound."""

    needs: ClassVar[frozenset[str]] = frozenset({"baseline_reward"})
    unit: ClassVar[Unit] = "row"

    def __call__(self, batch: Batch) -> Tensor:
        difference = batch.reward - batch.baseline_reward
        if self.clip is not None:
            difference = difference.clamp(-self.clip, self.clip)
        to_go = batch.mask.flip(-1).cumsum(-1).flip(-1)
        advantage = difference[:, None] * self.gamma**to_go
        if batch.token_reward is not None:
            advantage = advantage + batch.token_reward
        return masked(advantage, batch.mask)
