"""Generalised advantage estimation."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from policyopt.groups import whiten
from policyopt.part import Advantage, Fraction, NonNegative, Unit, part
from policyopt.rows import Batch, masked

Cut = Literal["end", "hold"]


@part
class GAE(Advantage):
    r"""Generalised advantage estimation over the tokens that the policy wrote, whitened over the batch.

    .. math:: \delta_t = \rho_t + \gamma V_{t+1} - V_t,\qquad \hat A_t = \sum_l (\gamma\lambda)^l \delta_{t+l},\qquad
              A = (\hat A - \mu) / \sqrt{\sigma^2 + \epsilon}

    rho holds the token rewards and, on the last token, the response's reward. Source: arXiv:1506.02438, eq. 16;
    whitening as in openai/lm-human-preferences; ``cut="hold"`` is the extended form of T-PPO, arXiv:2506.15050. Our
    reading: ddof 1, statistics over all tokens of the batch that was drawn.
    """

    gamma: Fraction = 1.0
    """Discount per token."""
    lam: Fraction = 0.95
    """Trade of bias (0: one-step error) for variance (1: return to go minus value)."""
    cut: Cut = "end"
    """What follows the last token of a truncated response: nothing (``end``), or the value before it (``hold``)."""
    whiten: bool = True
    """Centre and scale over all tokens of the batch that the policy wrote."""
    ddof: Literal[0, 1] = 1
    """Delta degrees of freedom of the whitening."""
    whiten_eps: NonNegative = 1e-8
    """Added to the variance."""

    needs: ClassVar[frozenset[str]] = frozenset({"value"})
    unit: ClassVar[Unit] = "batch"

    def __call__(self, batch: Batch) -> Tensor:
        raw = gae(batch, self.gamma, self.lam, self.cut)
        if not self.whiten:
            return raw
        return whiten(raw, weight=batch.own(), ddof=self.ddof, variance_eps=self.whiten_eps) * batch.mask


def token_rewards(batch: Batch) -> Tensor:
    """The reward that falls on each token, [N, T]: token rewards, and the response's reward on its last token."""
    final = batch.reward[:, None] * batch.terminal()
    return final if batch.token_reward is None else final + masked(batch.token_reward, batch.mask)


def gae(batch: Batch, gamma: float | Tensor, lam: float, cut: Cut = "end") -> Tensor:
    r"""Generalised advantage estimates [N, T] before any whitening (arXiv:1506.02438, eq. 16).

    ``gamma`` is the discount from each token of the policy to its next one, one number or [N, T].

    The recursion runs over the policy's own tokens: where text of others stands in between, the next *policy* token's
    value counts. After the last token comes a value of 0 or, where the response is truncated and ``cut`` is "hold",
    the last one again, :math:`V_l = V_{l-1}` (T-PPO, arXiv:2506.15050): the response is taken to go on as it went.
    """
    reward, value, mask = token_rewards(batch), batch.old_value, batch.mask
    discount = torch.as_tensor(gamma, dtype=reward.dtype, device=reward.device).expand_as(reward)
    advantage = torch.zeros_like(reward)
    next_advantage = torch.zeros_like(reward[:, 0])
    next_value = torch.zeros_like(next_advantage)
    if cut == "hold":
        last = masked(value, batch.terminal()).sum(-1)
        next_value = torch.where(batch.truncated > 0.5, last, next_value)
    for t in range(reward.shape[1] - 1, -1, -1):
        here = mask[:, t].bool()
        follows = next_value + lam * next_advantage
        estimate = reward[:, t] + discount[:, t] * follows - value[:, t]
        advantage[:, t] = torch.where(here, estimate, torch.zeros_like(estimate))
        next_advantage = torch.where(here, estimate, next_advantage)
        next_value = torch.where(here, value[:, t], next_value)
    return advantage
