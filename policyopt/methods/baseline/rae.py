"""RAE."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.methods.baseline.reinforce import reinforce
from policyopt.part import Advantage, Fraction, Memory, part
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch


@part
class AgainstHistory(Advantage):
    r"""Reward minus what the memory holds of the row, :math:`A_i = R_i - h_i`; 0 is taken off where it holds nothing yet.

    Source: SPIRAL, arXiv:2506.24119.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"history"})

    def __call__(self, batch: Batch) -> Tensor:
        baseline = batch.history[:, 0].nan_to_num(0.0)
        return (batch.total_reward() - baseline)[:, None] * batch.mask


@part
class RoleAverage(Memory):
    r"""The moving average of the rewards of a role, :math:`b \leftarrow \alpha b + (1 - \alpha) R`, once for each row, from 0 on.

    Source: SPIRAL, arXiv:2506.24119, and spiral-rl/spiral.
    """

    decay: Fraction = 0.95
    """alpha."""

    of: ClassVar[Literal["prompt", "role"]] = "role"

    def __call__(self, batch: Batch) -> Tensor:
        before = torch.zeros_like(batch.reward) if batch.history is None else batch.history[:, 0].nan_to_num(0.0)
        return (self.decay * before + (1 - self.decay) * batch.total_reward())[:, None]


@method(
    parent=reinforce,
    arxiv="2506.24119",
    code="spiral-rl/spiral",
    confidence="code",
    claim=Claim(
        "Where roles have rewards of different size, a baseline for each makes the policy gradient less noisy than one for all.",
        "mixed-difficulty",
        (Effect("accuracy", "higher", 0.01),),
    ),
)
def rae(decay: float = 0.95, group_size: int = 1) -> Recipe:
    r"""Role-conditioned Advantage Estimation, SPIRAL's: REINFORCE whose baseline is the moving average of the rewards of the same role.

    .. math:: A_i = R_i - b_{g_i},\qquad b_g \leftarrow \alpha\,b_g + (1-\alpha)\,R_i,\qquad
              L = -\frac1N\sum_i A_i \sum_t\log\pi_\theta(y_{i,t})

    g is the role: the source of the question in a mixture, together with the ``origin`` that a program gives its rows, such as the seat
    that a response plays in a game. In a game of two whose rewards add up to zero, the mean over both seats is 0 whatever the policy does, and
    one who moves first and wins more often would be credited for it for ever. alpha = ``decay``. Baselines begin at 0, wait in the checkpoint, and
    are logged nowhere but in the advantages. With one role it is REINFORCE's moving average, row by row. Source: arXiv:2506.24119,
    spiral-rl/spiral (0.95, from 0), and ``rae`` of prime-rl. Our reading: all rows of a step are measured by the baselines from
    before it, where the authors go on from row to row, so that their order does not count in the gradient; it does in the average. Playing
    against oneself is a program's to do, and is not part of this page.
    """
    return reinforce(baseline="none", group_size=group_size).replace(
        advantage=AgainstHistory(), memory=RoleAverage(decay=decay)
    )
