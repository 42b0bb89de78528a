"""PrefixRL."""

from __future__ import annotations

from policyopt.methods.group.grpo import grpo
from policyopt.parts import LogProb, TokenMean
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rollout.begun import Prefixed


@method(parent=grpo, arxiv="2601.18795", confidence="secondary")
def prefix_rl(shortest: float = 0.4, longest: float = 0.8, cuts: int = 3, group_size: int = 8) -> Recipe:
    r"""PrefixRL: problems come with the beginning of a right answer as often as without, and skill passes from one to
    the other.

    .. math:: L = -\frac{1}{\sum_{i,t} w_{i,t}}\sum_{i,t} w_{i,t}\,A_i \log\pi_\theta(y_{i,t} \mid x, y_{i,<t}),\qquad
              w_{i,t} = 1[t > h_i]

    h tokens of the worked solution, a share between ``shortest`` and ``longest`` that is fixed for each of ``cuts``
    versions of a problem, are context; a group shares its prefix and is normalised by itself, as in GRPO. One group in
    ``cuts`` + 1 has none. On-policy REINFORCE, no KL. Source: arXiv:2601.18795, from a third party's description. Our
    reading: GRPO's normalisation and a token-mean over what the policy wrote; the traces are the task's solutions.
    """
    return grpo(kl_coef=0.0).replace(
        rollout=Prefixed(size=group_size, low=shortest, high=longest, cuts=cuts),
        surrogate=LogProb(),
        aggregate=TokenMean(),
    )
