"""Losses of a learned value function."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from policyopt.part import Critic, Fraction, NonNegative, part
from policyopt.parts.advantage.gae import gae
from policyopt.rows import Batch, masked


def over_states(x: Tensor, states: Tensor, mask: Tensor) -> Tensor:
    """[N, T] numbers that belong to some tokens of a row, weighed so that ``seq-mean-token-mean`` takes their mean over
    these ``states`` [N, T], then over rows."""
    count = states.sum(-1, keepdim=True).clamp(min=1)
    return masked(x, states) * (mask.sum(-1, keepdim=True) / count)


@part
class ClippedValueLoss(Critic):
    r"""The pessimistic clipped squared error of the critic.

    .. math:: \frac{c}{2}\max\big((v - G)^2,\; (\mathrm{clip}(v, V - \epsilon, V + \epsilon) - G)^2\big)

    v is the prediction now, V the one when the batch was drawn, :math:`G = \hat A + V` the return, made from advantages before
    whitening. Source: openai/lm-human-preferences, ``train_policy.py``.
    """

    coef: NonNegative = 0.1
    """Weight of the critic's loss beside the policy's."""
    clip: NonNegative | None = 0.2
    """How far the prediction may usefully move in one batch; None for no bound."""
    gamma: Fraction = 1.0
    """Discount per token of the return."""
    lam: Fraction = 0.95
    """Lambda of the return."""
    finished_only: bool = False
    """Leave truncated responses out: their return is not known yet (T-PPO, arXiv:2506.15050)."""

    needs: ClassVar[frozenset[str]] = frozenset({"value"})

    def target(self, batch: Batch) -> Tensor:
        return self.learned(batch) * (gae(batch, self.gamma, self.lam) + masked(batch.old_value, batch.mask))

    def learned(self, batch: Batch) -> Tensor:
        """[N, T] 1 on the tokens that the critic learns from."""
        return batch.mask * (batch.truncated < 0.5)[:, None] if self.finished_only else batch.mask

    def __call__(self, batch: Batch) -> Tensor:
        error = (batch.value - batch.returns) ** 2
        if self.clip is not None:
            clipped = torch.clamp(batch.value, batch.old_value - self.clip, batch.old_value + self.clip)
            error = torch.maximum(error, (clipped - batch.returns) ** 2)
        return 0.5 * self.coef * masked(error, self.learned(batch))
