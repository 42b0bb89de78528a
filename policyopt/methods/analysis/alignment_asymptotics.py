"""Asymptotics of alignment."""

from __future__ import annotations

from policyopt.methods.divergence.rl_as_bayes import rl_as_bayes
from policyopt.parts.probe import BestOf
from policyopt.recipe import Recipe
from policyopt.registry import method


@method(parent=rl_as_bayes, arxiv="2404.01730", confidence="recalled")
def alignment_asymptotics(strength: float = 10.0, most: int = 16, group_size: int = 4) -> Recipe:
    r"""Train towards the tilted policy that is optimal under a KL budget, and measure the front beside best-of-N.

    .. math:: \phi_\lambda(y) \propto \pi_0(y)\,e^{\lambda R(y)},\qquad
              \pi_N(y) = F(y)^N - F(y^-)^N,\qquad KL(\pi_N\|\pi_0) \le \log N - \frac{N-1}{N}

    lambda = ``strength``: :math:`\phi_\lambda` maximises the reward among all policies at its distance from the start, and is
    what KL-regularised REINFORCE with :math:`\beta = 1/\lambda` converges to. For long responses best-of-N is nearly as good
    at the same KL. At evaluations the reward of the best of 1, 2, 4, ... up to ``most`` samples is logged with its KL, and
    what the tilt would reach there (:class:`~policyopt.parts.probe.BestOf`). Source: arXiv:2404.01730, from general
    knowledge of it; the paper trains nothing, so the defaults are ours.
    """
    return rl_as_bayes(beta=1 / strength, group_size=group_size).replace(probes=(BestOf(most=most),))
