"""SAPO (Swarm sAmpling Policy Optimization)."""

from __future__ import annotations

from policyopt.claims import Claim
from policyopt.methods.group.grpo import grpo
from policyopt.methods.sampling.sapo_swarm.swarm import Swarm
from policyopt.parts import TokenMean
from policyopt.recipe import Recipe
from policyopt.registry import method


@method(
    parent=grpo,
    arxiv="2509.08721",
    code="gensyn-ai/rl-swarm",
    confidence="code",
    claim=Claim(
        "Runs that share the text of what they draw learn faster than each by itself.",
        beyond="It is about several runs that go on together; what a run of it learns depends on when the others "
        "write.",
    ),
)
def sapo_swarm(
    folder: str | None = None,
    external: int | None = None,
    low: float | None = 0.2,
    high: float | None = 0.28,
    kl_coef: float = 0.0,
    adv_eps: float = 1e-8,
    group_size: int = 8,
) -> Recipe:
    r"""Swarm sampling: runs share the text of their responses, and each trains on groups of others as on its own.

    .. math:: L = -\frac{1}{\sum_i|y_i|}\sum_{i \in own\,\cup\,foreign}\sum_t \min\big(r_{i,t}A_i,
              \mathrm{clip}(r_{i,t}, 1-\epsilon_l, 1+\epsilon_h)A_i\big),\qquad r_{i,t} = \frac{\pi_\theta(y_{i,t})}{\pi_{old}(y_{i,t})}

    pi_old is this run's own policy at the start of the update, for foreign text too. Runs that name the same ``folder``
    share; without one the method is GRPO with DAPO's clip and token mean, no KL. ``--batch`` counts the run's own
    responses, to which up to ``external`` groups are added; unset: as many as its own, the best split of the paper (4
    and 4 of 8). Not to be confused with Soft Adaptive Policy Optimization. Source: arXiv:2509.08721 and the authors'
    code, with groups of 8. Our reading: std with ddof 1; what is taken in and what is not, see the rollout.
    """
    return (
        grpo(low, high, kl_coef)
        .replace(source=Swarm(size=group_size, folder=folder, external=external), aggregate=TokenMean())
        .set("advantage.eps", adv_eps)
    )
