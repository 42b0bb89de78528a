"""OTR."""

from __future__ import annotations

from policyopt.methods.baseline.reinforce import reinforce
from policyopt.parts import TokenMean
from policyopt.parts.divergence import DistributionLoss, NoRatio, NoSurrogate
from policyopt.parts.one_token import OneToken
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rollout.demonstration import Demonstrated


@method(parent=reinforce, arxiv="2509.26313", confidence="secondary")
def otr(samples: int | None = 256, kappa: float = 1.3, wrong: float = -0.1, group_size: int = 1) -> Recipe:
    r"""One-Token Rollout: supervised fine-tuning as REINFORCE on single tokens, drawn at each place of a demonstration.

    .. math:: L = -\frac{1}{\sum_i|x_i|}\sum_{i,t}\frac1K\sum_j R(a_j)\log\pi_\theta(a_j),\qquad
              a_j \sim \mathrm{softmax}(z_{i,t}/\kappa),\qquad R(a) = 1\ (a = x_{i,t}),\quad \beta\ (a \ne x_{i,t})

    x are worked solutions, beta = ``wrong``, K = ``samples``; None takes the expectation over all draws. With beta 0 it is
    SFT in which a token counts as much as the policy expects it. Nothing is generated and nothing judged. Source:
    arXiv:2509.26313 from a third party's account (K 256, kappa 1.3; beta -0.1 is recalled). Our reading: draws are scored
    at temperature 1, without importance weight. The draws follow from the policy's distribution itself, so any split of
    the batch draws the same.
    """
    return reinforce(baseline="none").replace(
        rollout=Demonstrated(size=group_size, share=1.0),
        ratio=NoRatio(),
        surrogate=NoSurrogate(),
        aggregate=TokenMean(),
        regularizers=(DistributionLoss(of=OneToken(samples=samples, kappa=kappa, wrong=wrong)),),
    )
