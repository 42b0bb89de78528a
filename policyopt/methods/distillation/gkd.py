"""GKD, on-policy distillation."""

from __future__ import annotations

from typing import Literal

from policyopt.claims import Claim, Effect
from policyopt.parts import (
    Correctness,
    DistributionLoss,
    KLPenalty,
    Normalise,
    RatioTimesAdvantage,
    SeqMeanTokenMean,
    TokenMean,
    TokenRatio,
)
from policyopt.parts.statistic.jsd import JSD
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.sources.draw import Demonstrated, Group


@method(
    arxiv="2306.13649",
    confidence="secondary",
    claim=Claim(
        "Distilled on its own samples, where its mistakes are, a student learns more than from given solutions.",
        "sparse-hard",
        (Effect("accuracy", "higher", 0.02),),
        against="gkd",
        both={"steps": 10},
        ours={"student-share": 1.0},
        theirs={"student-share": 0.0, "beta": 0.0},
    ),
)
def gkd(
    beta: float = 0.5,
    temperature: float = 1.0,
    student_share: float = 0.5,
    form: Literal["full", "sampled"] = "full",
    kl_coef: float = 1.0,
    group_size: int = 1,
) -> Recipe:
    r"""Generalised knowledge distillation: the teacher's whole distribution as the target on the student's own responses.

    .. math:: L = \frac1N\sum_i\frac1{|y_i|}\sum_t D_\beta(P_{i,t}, Q_{i,t}),\qquad
              D_\beta = \beta\,KL(P\|M) + (1-\beta)\,KL(Q\|M),\qquad M = \beta P + (1-\beta)Q

    P is the teacher, Q the student, both at ``temperature`` (without its square as a factor); ``beta`` 0 is KL(P || Q), 1
    is KL(Q || P). A prompt is answered by the student with probability ``student_share``, else by its worked solution. No
    gradient through the sampling. ``form="sampled"`` needs the teacher's word on the sampled tokens alone:
    :math:`L = -\frac{1}{\sum_i|y_i|}\sum_{i,t} r_{i,t}A_{i,t}`, :math:`A = -\kappa\log(\pi_{old}/P)` with kappa = ``kl_coef``
    and no sum over later tokens; all responses are then the student's. Source: arXiv:2306.13649, defaults from TRL's index
    of the paper; sampled: Thinking Machines, "On-policy distillation", 2025. Our reading: a coin per prompt, not per batch.
    """
    if form == "sampled":
        return Recipe(
            source=Group(size=group_size),
            shape=(Correctness(right=0.0, wrong=0.0), KLPenalty(coef=kl_coef, target="teacher")),
            advantage=Normalise(centre="none", scale="none", gamma=0.0),
            ratio=TokenRatio(),
            surrogate=RatioTimesAdvantage(),
            aggregate=TokenMean(),
        )
    return Recipe(
        source=Demonstrated(size=group_size, share=1 - student_share),
        advantage=Normalise(centre="none", scale="none"),
        aggregate=SeqMeanTokenMean(),
        regularizers=(DistributionLoss(of=JSD(beta=beta, temperature=temperature)),),
    )
