"""KL-regularised RL as Bayesian inference."""

from __future__ import annotations

from typing import Literal

from policyopt.methods.baseline.reinforce import reinforce
from policyopt.parts import KLPenalty
from policyopt.parts.divergence import PosteriorWeight
from policyopt.parts.probe import PosteriorGap
from policyopt.recipe import Recipe
from policyopt.registry import method


@method(parent=reinforce, arxiv="2205.11275", confidence="recalled")
def rl_as_bayes(
    beta: float = 0.1,
    direction: Literal["reverse", "forward"] = "reverse",
    momentum: float = 0.9,
    group_size: int = 4,
) -> Recipe:
    r"""Train towards the posterior whose prior is the start policy and whose evidence is the exponentiated reward.

    .. math:: J(\pi) = E_\pi[R] - \beta\,KL(\pi\|\pi_0) = \beta\log Z - \beta\,KL(\pi\|\pi^*),\qquad
              \pi^*(y) = \pi_0(y)\,e^{R(y)/\beta} / Z

    ``reverse`` is REINFORCE with the reward :math:`R - \beta\log(\pi/\pi_0)`, the ratio held constant: variational
    inference, which seeks a mode. ``forward`` weighs each response by :math:`\pi^*/\pi_\theta`, with Z from its group: it
    descends :math:`KL(\pi^*\|\pi_\theta)`, which covers the posterior and is no reward maximisation. Both log the distance
    to the posterior (``posterior/gap``) at evaluations. The paper argues and has no defaults: all here are ours.
    """
    probes = (PosteriorGap(beta=beta),)
    if direction == "forward":
        return reinforce(baseline="none", group_size=group_size).replace(
            advantage=PosteriorWeight(beta=beta), probes=probes
        )
    return reinforce(momentum=momentum, group_size=group_size).replace(shape=(KLPenalty(coef=beta),), probes=probes)
