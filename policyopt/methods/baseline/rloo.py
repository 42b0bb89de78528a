"""RLOO."""

from __future__ import annotations

from policyopt.claims import Claim, Effect
from policyopt.methods.baseline.reinforce import reinforce
from policyopt.parts import KLPenalty, Normalise, PPOClip, SeqMeanTokenMean, SequenceRatio
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.sources.draw import Group


@method(
    parent=reinforce,
    arxiv="2402.14740",
    confidence="secondary",
    claim=Claim(
        "The other responses to a prompt make a better baseline than a critic: REINFORCE with them does better than PPO.",
        "number_sorting",
        (Effect("accuracy", "higher", 0.02),),
        against="ppo",
        ours={"kl-coef": 0.0},
        theirs={"epochs": 1, "kl-coef": 0.0},
    ),
)
def rloo(kl_coef: float = 0.03, group_size: int = 4, clip: float | None = None) -> Recipe:
    r"""REINFORCE whose baseline is the mean reward of the other responses to the same prompt.

    .. math:: R_i = r_i - \beta\sum_t \log\frac{\pi_{old}}{\pi_{ref}},\qquad A_i = R_i - \frac{1}{k-1}\sum_{j\ne i} R_j,\qquad
              L = -\frac1N \sum_i A_i \sum_t \log\pi_\theta(y_{i,t})

    k = ``group_size``, beta = ``kl_coef``. The advantages of a group sum to zero; with k = 2 they are plus and minus
    the difference. Defaults: section 4 of the paper (k 2 or 4, beta 0.03). The baseline leaves out the row itself,
    which keeps the gradient unbiased.

    This loss reads no ratio. With several updates on a batch, or stale batches, its gradient is that of the policy that
    drew the responses, and not that of TRL's RLOO. ``clip`` = 0.2 is the latter:
    :math:`L = \frac1N\sum_i \max(-\rho_i A_i, -\mathrm{clip}(\rho_i, 1-\epsilon, 1+\epsilon)A_i)`, rho_i the ratio of the
    whole response, a product over its tokens. On the first update on a fresh batch both have the same gradient.
    """
    plain = reinforce(baseline="none").replace(
        source=Group(size=group_size),
        shape=(KLPenalty(coef=kl_coef),) if kl_coef else (),
        advantage=Normalise(centre="leave-one-out", scale="none"),
    )
    if clip is None:
        return plain
    return plain.replace(
        ratio=SequenceRatio(reduce="sum"),
        surrogate=PPOClip(low=clip, high=clip),
        aggregate=SeqMeanTokenMean(),
    )
