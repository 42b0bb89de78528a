"""GRAO."""

from __future__ import annotations

from policyopt.methods.baseline.reinforce import reinforce
from policyopt.parts import Normalise
from policyopt.parts.alignment import AgainstSamples, Alignment, PromptMean
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rollout.target import WithReference


@method(parent=reinforce, arxiv="2508.07750", confidence="paper")
def grao(
    beta: float = 0.5,
    lam: float = 0.6,
    target_in_group: bool = True,
    temperature: float = 0.7,
    group_size: int = 8,
) -> Recipe:
    r"""Group Relative Alignment Optimization: imitate a reference answer while it is better than the samples.

    .. math:: L = -\tfrac1G\sum_i A_i\ell_i - \beta A_y\ell_y - \lambda\tfrac1G\sum_i A_i(\ell_i - \ell_y),\qquad
              \ell = \tfrac{1}{|o|}\sum_t\log\pi_\theta(o_t),\qquad A = \frac{R - \mu}{\sigma + 10^{-6}}

    o_i are the samples, y the reference; L is the mean over prompts. mu and sigma run over the G + 1 rewards of both
    or, without ``target_in_group``, over the samples. A reference below the mean is pushed away. With beta and lambda 0
    it is REINFORCE with the baseline of the group; no ratio, no clip, no KL. Source: arXiv:2508.07750, the paper's
    defaults. Our reading: the joint group, which the text describes (eq. 4 prints G samples); references are the worked
    solutions, judged as samples are; a prompt without one is trained on by its samples.
    """
    statistics = Normalise if target_in_group else AgainstSamples
    return reinforce(baseline="none", group_size=group_size).replace(
        rollout=WithReference(size=group_size, temperature=temperature),
        advantage=statistics(ddof=0),
        surrogate=Alignment(beta=beta, lam=lam),
        aggregate=PromptMean(),
    )
