"""Value functions: temporal differences and the loss of the critic."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from policyopt.batch import Batch, masked
from policyopt.parts.base import Critic, Fraction, NonNegative, Unit, part


def token_rewards(batch: Batch) -> Tensor:
    """The reward that falls on each token, [N, T]: token rewards, and the response's reward on its last token."""
    final = batch.reward[:, None] * batch.terminal()
    return final if batch.token_reward is None else final + masked(batch.token_reward, batch.mask)


def over_states(x: Tensor, states: Tensor, mask: Tensor) -> Tensor:
    """[N, T] numbers that belong to some tokens of a row, weighed so that ``seq-mean-token-mean`` takes their mean over
    these ``states`` [N, T], then over rows."""
    count = states.sum(-1, keepdim=True).clamp(min=1)
    return masked(x, states) * (mask.sum(-1, keepdim=True) / count)


Cut = Literal["end", "hold"]


def gae(batch: Batch, gamma: float, lam: float, cut: Cut = "end") -> Tensor:
    r"""Generalised advantage estimates [N, T] before any whitening (arXiv:1506.02438, eq. 16).

    The recursion runs over the policy's own tokens: where text of others stands in between, the next *policy* token's
    value counts. After the last token comes a value of 0 or, where the response is truncated and ``cut`` is "hold",
    the last one again, :math:`V_l = V_{l-1}` (T-PPO, arXiv:2506.15050): the response is taken to go on as it went.
    """
    reward, value, mask = token_rewards(batch), batch.old_value, batch.mask
    advantage = torch.zeros_like(reward)
    next_advantage = torch.zeros_like(reward[:, 0])
    next_value = torch.zeros_like(next_advantage)
    if cut == "hold":
        last = masked(value, batch.terminal()).sum(-1)
        next_value = torch.where(batch.truncated > 0.5, last, next_value)
    for t in range(reward.shape[1] - 1, -1, -1):
        here = mask[:, t].bool()
        estimate = reward[:, t] + gamma * next_value - value[:, t] + gamma * lam * next_advantage
        advantage[:, t] = torch.where(here, estimate, torch.zeros_like(estimate))
        next_advantage = torch.where(here, estimate, next_advantage)
        next_value = torch.where(here, value[:, t], next_value)
    return advantage


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


@part
class NodeValueLoss(Critic):
    r"""The squared error of the critic at the nodes of a tree of responses.

    .. math:: c\,rac{1}{|S_i|}\sum_{t\in S_i}(v_{i,t} - G_{i,t})^2,\qquad G = V(n)	ext{ at the end of node }n,\quad R_i	ext{ at the last token}

    V(n) is ``node_value``; where there is none, as in independent responses, every state is regressed on the reward. A
    state that several responses pass counts once for each. Meant for ``seq-mean-token-mean``. Source: ReST-RL,
    arXiv:2508.19576, and the authors' code (THUDM/ReST-RL).
    """

    coef: NonNegative = 1.0
    """c."""

    needs: ClassVar[frozenset[str]] = frozenset({"value"})
    unit: ClassVar[Unit] = "row"

    def target(self, batch: Batch) -> Tensor:
        return self._known(batch)[1]

    def __call__(self, batch: Batch) -> Tensor:
        states, returns = self._known(batch)
        return self.coef * over_states((batch.value - returns) ** 2, states, batch.mask)

    def _known(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """[N, T] 1 on the tokens before which the value is known, and what it is there."""
        reward = batch.total_reward()[:, None]
        if batch.node_value is None:
            return batch.mask, reward * batch.mask
        position = torch.arange(batch.mask.shape[1], device=batch.mask.device)
        known = (batch.node > 0) & ~batch.node_value.isnan()
        at = known[..., None] & (batch.node_end[..., None] == position)
        value = torch.where(at, batch.node_value[..., None], -torch.inf).amax(1)
        last = batch.terminal().bool()
        states = batch.mask * (at.any(1) | last)
        return states, masked(torch.where(last, reward, value), states)
