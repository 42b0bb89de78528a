"""T1."""

from __future__ import annotations

from policyopt.claims import Claim, Effect
from policyopt.methods.baseline.rloo import rloo
from policyopt.parts import EMA, EntropyBonus, TokenMean, TruncatedReward
from policyopt.parts.regularizer.kl import KL
from policyopt.recipe import Recipe
from policyopt.registry import method


@method(
    parent=rloo,
    arxiv="2501.11651",
    code="THUDM/T1",
    confidence="secondary",
    claim=Claim(
        "Many hot samples, an entropy bonus and a reference that follows keep exploration alive: what is solved goes on growing.",
        "many-answers",
        (Effect("entropy", "higher", 0.02), Effect("accuracy", "higher", -0.01)),
        both={"group-size": 16},
        ours={"recipe.source.temperature": 1.2},
        theirs={"kl-coef": 0.0},
    ),
)
def t1(
    entropy_coef: float = 0.01,
    kl_coef: float = 0.02,
    decay: float = 0.9,
    unexpected_reward: float = -1.0,
    group_size: int = 16,
) -> Recipe:
    r"""T1: RLOO over many samples with an entropy bonus and a KL to a reference that follows the policy.

    .. math:: L = \frac{1}{\sum_i|y_i|}\sum_{i,t}\big[-A_i\log\pi_\theta(y_{i,t}) - \beta_H H_{i,t} + \beta_{KL}\,k3_{i,t}\big],\qquad
              A_i = r_i - \frac{1}{K-1}\sum_{j\ne i} r_j,\qquad \theta_{ref} \leftarrow \eta\,\theta_{ref} + (1-\eta)\,\theta

    K = ``group_size``, eta = ``decay``, after each step; with eta 0 the reference is the policy before the step. A response that
    is cut off at the budget is worth ``unexpected_reward``, less than an honest wrong one. A raised temperature is the run's
    (``--recipe.source.temperature``). The paper names these pieces: many samples, an entropy bonus, an anchor that is
    updated on the way, penalties on unexpected patterns. Source: arXiv:2501.11651 (THUDM/T1 has no code) and third parties. Our reading: the
    estimator, the law of the anchor and every number; endless repetition ends at the budget, and mixed languages are for a judge to find.
    """
    return rloo(kl_coef=0.0, group_size=group_size).replace(
        shape=(TruncatedReward(reward=unexpected_reward),),
        aggregate=TokenMean(),
        regularizers=(
            *((EntropyBonus(coef=entropy_coef),) if entropy_coef else ()),
            *((KL(coef=kl_coef),) if kl_coef else ()),
        ),
        reference=EMA(decay=decay),
    )
