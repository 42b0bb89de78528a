"""The soft Bellman equation: what the policy gained over the reference, and what the critic expects, must add up to the
reward."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from policyopt.batch import Batch, masked
from policyopt.parts.base import Critic, NonNegative, Surrogate, Unit, part
from policyopt.parts.contrast import row_credit
from policyopt.parts.value import over_states

Action = Literal["token", "step", "response"]


def action_starts(batch: Batch, action: Action) -> Tensor:
    """[N, T] 1 on the first token of each action: every token, the tokens that begin a step, or the first of all.

    A step ends where ``step_end`` says so; what comes after the last end is a step too.
    """
    mask = batch.mask
    if action == "token":
        return mask
    if action == "response":
        return mask * (mask.cumsum(-1) == 1)
    position = torch.arange(mask.shape[1], device=mask.device)
    ends = torch.where(batch.step_end >= 0, batch.step_end, mask.shape[1])
    step = (position[:, None] > ends[:, None, :]).sum(-1)
    own = torch.where(mask.bool(), step, -1).cummax(-1).values
    before = torch.nn.functional.pad(own[:, :-1], (1, 0), value=-1)
    return mask * (own > before)


def soft_returns(gain: Tensor, batch: Batch, beta: float) -> Tensor:
    r"""What each state is worth to the policy that made the gains, [N, T]: :math:`R_i - \beta\sum_{j\ge t}\ell_{i,j}`, from the
    log-ratios to the reference, ``gain`` [N, T]."""
    later = masked(gain, batch.mask).flip(-1).cumsum(-1).flip(-1)
    return row_credit(batch)[:, None] - beta * later


@part
class SoftBellman(Surrogate):
    r"""The squared residual of the soft Bellman equation, in which the policy moves and the critic stands still.

    .. math:: e_{i,t} = sg[V_{i,t}] + \beta\sum_{j\in a_t}\ell_{i,j} + \beta\,sg\Big[\sum_{j\text{ after }a_t}\ell_{i,j}\Big] - R_i,\qquad
              \ell = \log\frac{\pi_\theta}{\pi_{ref}},\qquad L_i = \frac{1}{|S_i|}\sum_{t\in S_i} e_{i,t}^2

    S_i [N, T] are the states in which an action a_t begins; R_i is the advantage of the row, which is its reward where
    nothing is subtracted. With tokens as actions the gradient of each token comes from its own residual alone: -e stands
    in the place of an advantage. Meant for ``seq-mean-token-mean``. Source: OREO, arXiv:2412.16145, and the authors' code
    (jwhj/OREO).
    """

    beta: NonNegative = 0.03
    """beta: reward worth one nat."""
    action: Action = "token"
    """What an action is; a step ends where ``step_end`` says so."""

    unit: ClassVar[Unit] = "row"

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        """The reference, the critic, and the steps where they are the actions."""
        return frozenset({"ref_logp", "value", *(("step_end",) if self.action == "step" else ())})

    def residual(self, batch: Batch) -> Tensor:
        """e [N, T]; 0 where no action begins."""
        starts = action_starts(batch, self.action)
        gain = masked(batch.logp - batch.ref_logp, batch.mask)
        number = (starts.cumsum(-1) - 1).clamp(min=0).long()  # of the action that each token belongs to
        own = torch.zeros_like(gain).scatter_add(1, number, gain).gather(1, number)
        rest = soft_returns(gain, batch, self.beta) + self.beta * own  # the reward, less what comes after the action
        return masked(batch.value.detach() + self.beta * own - rest.detach(), starts)

    def __call__(self, log_ratio: Tensor, batch: Batch) -> Tensor:
        return over_states(self.residual(batch) ** 2, action_starts(batch, self.action), batch.mask)

    def metrics(self, log_ratio: Tensor, batch: Batch) -> dict[str, Tensor]:
        return {"bellman/residual": self.residual(batch).abs()}


@part
class SoftBellmanValue(Critic):
    r"""The squared residual of the soft Bellman equation, in which the critic moves and the policy stands still.

    .. math:: L_i = \frac{c}{|S_i|}\sum_{t\in S_i}(V_{i,t} - G_{i,t})^2,\qquad
              G_{i,t} = R_i - \beta\,sg\Big[\sum_{j\ge t}\log\frac{\pi_\theta}{\pi_{ref}}(y_{i,j})\Big]

    G follows the policy as it is trained. Where it is still the reference this is the regression of V on the rewards.
    Meant for ``seq-mean-token-mean``. Source: OREO, arXiv:2412.16145, and the authors' code (jwhj/OREO).
    """

    coef: NonNegative = 1.0
    """c."""
    beta: NonNegative = 0.03
    """beta, the same as the policy's."""
    action: Action = "token"
    """Whose first tokens are the states."""

    unit: ClassVar[Unit] = "row"

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        """The reference, the critic, and the steps where they are the actions."""
        return SoftBellman(action=self.action).needs

    def target(self, batch: Batch) -> Tensor:
        return masked(soft_returns(batch.old_logp - batch.ref_logp, batch, self.beta), batch.mask)

    def __call__(self, batch: Batch) -> Tensor:
        returns = soft_returns((batch.logp - batch.ref_logp).detach(), batch, self.beta)
        starts = action_starts(batch, self.action)
        return self.coef * over_states((batch.value - returns) ** 2, starts, batch.mask)
