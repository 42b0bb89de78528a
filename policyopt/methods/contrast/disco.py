"""DisCO."""

from __future__ import annotations

from typing import Literal

from policyopt.methods.group.grpo import grpo
from policyopt.parts import HardNegatives, Normalise, RowScore, TrustRegion
from policyopt.recipe import Recipe, Update
from policyopt.registry import method


@method(parent=grpo, arxiv="2505.12366", code="Optimization-AI/DisCO", confidence="code")
def disco(
    score: Literal["log-likelihood", "likelihood-ratio"] = "log-likelihood",
    tau: float | None = 10.0,
    beta: float = 1e3,
    delta: float = 1e-4,
    minibatches: int = 4,
    group_size: int = 8,
) -> Recipe:
    r"""Discriminative Constrained Optimization: push the scores of right answers above those of the hardest wrong ones,
    inside a trust region.

    .. math:: L = -\frac1Q\sum_q\frac{1}{|P_q|}\sum_{i\in P_q}\Big(s_i - \tau\log\frac{1}{|N_q|}\sum_{j\in N_q}e^{s_j/\tau}\Big)
              + \frac\beta2\max(D - \delta, 0)^2,\qquad D = \mathrm{mean}_{tok}\log\frac{\pi_{old}}{\pi_\theta}

    P_q and N_q are the right and the wrong answers to prompt q (above and below the mean reward of the group), s the mean
    log-probability of a response or the mean of its token ratios. ``tau=None`` is the plain mean over the wrong ones
    (DisCO-b). Unlike GRPO the weight of a prompt does not depend on its accuracy. Defaults from the authors' scripts;
    they have tau 1 for the likelihood ratio.
    """
    likelihood = RowScore(reduce="mean")
    ratio = RowScore(against="old", reduce="mean", ratio=True)
    return grpo(kl_coef=0.0, group_size=group_size).replace(
        advantage=Normalise(centre="group", scale="none"),
        surrogate=HardNegatives(score=likelihood if score == "log-likelihood" else ratio, tau=tau),
        regularizers=(TrustRegion(coef=beta, deviation="kl-old-new", limit=delta),),
        update=Update(minibatches=minibatches),
    )
