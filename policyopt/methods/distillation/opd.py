"""OPD, on-policy distillation as a policy gradient."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.methods.distillation.gkd import gkd
from policyopt.methods.group.grpo import grpo
from policyopt.part import Advantage, Finite, Fraction, Wrapper, part
from policyopt.parts import PPOClip
from policyopt.parts.advantage.gae import gae
from policyopt.parts.regularizer.kl import Target
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch, masked
from policyopt.schema import member


@part
class TeacherAdvantage(Wrapper, Advantage):
    r"""How much likelier the teacher finds each token than the policy that drew it, on top of another advantage.

    .. math:: A_{i,t} = A^0_{i,t} + \kappa\sum_{u\ge t}\gamma^{u-t}\log\frac{\pi_T}{\pi_{old}}(y_{i,u})

    The second term is minus the reverse KL, token by token; it is never centred nor scaled, so that a teacher who agrees
    leaves :math:`A^0` alone. With gamma 0 a token answers for itself. The sum runs over the policy's own tokens. Source:
    Thinking Machines, "On-policy distillation", 2025, and tinker-cookbook (no :math:`A^0`); slime (beside GRPO's).
    """

    coef: Finite = 1.0
    """kappa."""
    gamma: Fraction = 0.0
    """Discount per token."""
    target: Target = "teacher"
    """The teacher's role."""
    base: Advantage | None = None
    """The advantage that it is added to; None for none."""

    around: ClassVar[str] = "base"

    @property
    def needs(self) -> frozenset[str]:
        """The teacher's log-probabilities, and what the other advantage reads."""
        return super().needs | {member("logp_of", self.target)}

    def __call__(self, batch: Batch) -> Tensor:
        gap = masked(batch.logp_of(self.target) - batch.old_logp, batch.mask)
        if self.gamma:
            nothing = torch.zeros_like(gap)
            gap = gae(batch.replace(token_reward=gap, reward=nothing[:, 0], old_value=nothing), self.gamma, 1.0)
        return self.coef * gap if self.base is None else self.base(batch) + self.coef * gap


@method(
    parent=gkd,
    code="thinking-machines-lab/tinker-cookbook",
    confidence="code",
    claim=Claim(
        "A teacher's word on every token of the student's own responses teaches in fewer steps than a reward for each whole response.",
        "mixed-difficulty",
        (Effect("accuracy", "higher", 0.02),),
        against="grpo",
        both={"steps": 20},
    ),
)
def opd(
    kl_coef: float = 1.0,
    gamma: float = 0.0,
    rewards: bool = False,
    low: float | None = None,
    high: float | None = None,
    group_size: int = 4,
) -> Recipe:
    r"""On-policy distillation: the student draws, and how much likelier the teacher finds each token is its advantage.

    .. math:: L = -\frac{1}{\sum_i|y_i|}\sum_{i,t} r_{i,t}\,sg[A_{i,t}],\qquad
              A_{i,t} = [A^{GRPO}_i +]\ \kappa\sum_{u\ge t}\gamma^{u-t}\big(\log\pi_T - \log\pi_{old}\big)(y_{i,u})

    On-policy, at gamma 0, its gradient is an unbiased estimate of that of the reverse KL at each position, positions
    taken as they were reached: the sampled form of GKD, with kappa = ``kl_coef``. The teacher (``--teacher``) is asked
    about the sampled tokens alone. With ``rewards`` GRPO's advantage stands beside it, as in slime, and ``low`` and
    ``high`` clip the ratio as PPO does. Responses to one prompt are compared only then.

    Sources: Thinking Machines, "On-policy distillation", 2025, and tinker-cookbook (no rewards, discount 0, no clip,
    group 4); slime, ``apply_opd_kl_to_advantages`` (beside any advantage). prime-rl takes the gap to the policy that is
    trained, which is the same on-policy, drops tokens whose probability has fallen by more than 0.2, and adds
    :math:`10^{-3}\log^2 r` (``Proximal(coef=2e-3, deviation="k2")``). Our reading: the mean over the tokens of the mini-batch,
    as in prime-rl, where tinker sums.
    """
    return gkd(form="sampled", kl_coef=kl_coef, group_size=group_size).replace(
        shape=(),
        advantage=TeacherAdvantage(
            coef=kl_coef, gamma=gamma, base=grpo(group_size=group_size).advantage if rewards else None
        ),
        surrogate=PPOClip(low=low, high=high),
    )
