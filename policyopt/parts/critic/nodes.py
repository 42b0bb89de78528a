"""The loss of a critic that learns what the nodes of a tree are worth."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from policyopt.part import Critic, NonNegative, Unit, part
from policyopt.parts.critic.value import over_states
from policyopt.rows import Batch, masked


@part
class NodeValueLoss(Critic):
    r"""The squared error of the critic at the nodes of a tree of responses.

    .. math:: c\,\frac{1}{|S_i|}\sum_{t\in S_i}(v_{i,t} - G_{i,t})^2,\qquad G = V(n)\text{ at the end of node }n,\quad R_i\text{ at the last token}

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
