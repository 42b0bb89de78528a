"""OPD, on-policy distillation as a policy gradient."""

from __future__ import annotations

from policyopt.claims import Claim, Effect
from policyopt.methods.distillation.gkd import gkd
from policyopt.methods.group.grpo import grpo
from policyopt.parts import PPOClip, TeacherAdvantage
from policyopt.recipe import Recipe
from policyopt.registry import method


@method(
    parent=gkd,
    code="THUDM/slime",
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
