"""What a teacher says of the tokens that were drawn, as an advantage."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from policyopt.part import UNITS, Advantage, Finite, Fraction, Look, Unit, Wrapper, part
from policyopt.parts.advantage.gae import gae
from policyopt.parts.regularizer.kl import Target
from policyopt.rows import Batch, masked
from policyopt.schema import member

Self = Literal["live", "ema", "start"]
"""Which policy is its own teacher: the one that is trained, a moving average of it, or the one of the start."""


@part
class TeacherAdvantage(Wrapper, Advantage):
    r"""How much likelier the teacher finds each token than the policy that drew it, on top of another advantage.

    .. math:: A_{i,t} = A^0_{i,t} + \kappa\sum_{u\ge t}\gamma^{u-t}\log\frac{\pi_T}{\pi_{old}}(y_{i,u})

    The second term is minus the reverse KL, token by token; it is never centred nor scaled, so that a teacher who agrees
    leaves :math:`A^0` alone. With gamma 0 a token answers for itself. The sum runs over the policy's own tokens. A teacher that
    is a second look, the policy behind another context, has nothing to say of rows whose context is no other one.

    Sources: Thinking Machines, "On-policy distillation", 2025, and tinker-cookbook (no :math:`A^0`); slime (beside GRPO's);
    SDFT, arXiv:2601.19897, and SDPO, arXiv:2601.20802 (behind another context).
    """

    coef: Finite = 1.0
    """kappa."""
    gamma: Fraction = 0.0
    """Discount per token."""
    teacher: Target | Look = "teacher"
    """A role, or a second look."""
    base: Advantage | None = None
    """The advantage that it is added to; None for none."""

    around: ClassVar[str] = "base"

    @property
    def needs(self) -> frozenset[str]:
        """The teacher's log-probabilities, and what the other advantage reads."""
        teacher = self.teacher
        return super().needs | {teacher.column if isinstance(teacher, Look) else member("logp_of", teacher)}

    @property
    def unit(self) -> Unit:
        """The other advantage's, or the row where tokens answer for later ones."""
        return max(super().unit, "row" if self.gamma else "token", key=UNITS.index)

    def __call__(self, batch: Batch) -> Tensor:
        gap = self.gap(batch)
        if self.gamma:
            nothing = torch.zeros_like(gap)
            gap = gae(batch.replace(token_reward=gap, reward=nothing[:, 0], old_value=nothing), self.gamma, 1.0)
        return self.coef * gap if self.base is None else self.base(batch) + self.coef * gap

    def gap(self, batch: Batch) -> Tensor:
        """The log-probability of each token under the teacher less that under the policy that drew it, [N, T]."""
        if isinstance(self.teacher, Look):
            gap = masked(batch.behind(self.teacher) - batch.old_logp, batch.mask)
            return masked(gap, elsewhere(batch, self.teacher)[:, None])
        return masked(batch.logp_of(self.teacher) - batch.old_logp, batch.mask)


def elsewhere(batch: Batch, look: Look) -> Tensor:
    """[N] whether the context of a look is another one than the row's prompt; true where the batch has no contexts."""
    context = batch.members("context").get(look.key)
    if context is None:
        return torch.ones(len(batch), dtype=torch.bool, device=batch.mask.device)
    prompt = torch.where(batch.prompt_mask.bool(), batch.prompt, -1)
    width = max(prompt.shape[1], context.shape[1])
    wide = (nn.functional.pad(x, (0, width - x.shape[1]), value=-1) for x in (prompt, context))
    return torch.ne(*wide).any(-1)
