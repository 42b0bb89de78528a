"""CGPO."""

from __future__ import annotations

from typing import Literal

from policyopt.methods.baseline.reinforce import reinforce
from policyopt.parts import Normalise, SeqMeanTokenMean
from policyopt.parts.contrast import Logistic
from policyopt.parts.feasible import BestFeasible, CalibratedAdvantage, FeasiblePairs
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rollout.group import GroupWithGreedy


@method(parent=reinforce, arxiv="2409.20370", confidence="secondary")
def cgpo(
    optimizer: Literal["crpg", "codpo", "crraft"] = "crpg",
    judges: tuple[str, ...] = ("correct",),
    kl_max: float | None = 5.0,
    beta: float = 0.1,
    lam: float = 1.0,
    group_size: int = 4,
) -> Recipe:
    r"""Constrained generative policy optimisation: a reward says how good a response is, a mixture of judges whether it
    counts at all.

    .. math:: \tilde R_i = \prod_j 1[\text{judge } j]\;\sigma(r_i - \bar r)\,\max\Big(1 - \frac{d_i}{KL_{max}}, 0\Big),\qquad
              d_i = \log\frac{\pi_\theta(y_i)}{\pi_{ref}(y_i)}

    ``crpg`` is REINFORCE on R-tilde minus its mean over the batch; ``codpo`` is DPO (``beta``) on the best allowed
    response against the worst forbidden one, plus ``lam`` times the likelihood of the best; ``crraft`` raises the best
    allowed response in proportion to its calibrated reward. ``judges`` names what has to hold: "correct", "formatted", or
    parts of the verdict. Source: arXiv:2409.20370, after a third party's implementation that cites its equations. Our
    reading: the greedy response is the baseline that calibrates; the mean runs over responses, not tokens. Tasks with
    optimisers of their own are runs of their own here.
    """
    recipe = reinforce(baseline="batch-mean", group_size=group_size)
    drawn = recipe.replace(rollout=GroupWithGreedy(size=group_size))
    if optimizer == "crpg":
        return drawn.replace(advantage=CalibratedAdvantage(judges=judges, kl_max=kl_max))
    if optimizer == "crraft":
        return drawn.replace(advantage=BestFeasible(judges=judges, kl_max=kl_max))
    return recipe.replace(
        advantage=Normalise(centre="none", scale="none"),
        surrogate=FeasiblePairs(link=Logistic(beta=beta, anisotropy=1.0), judges=judges, likelihood=lam),
        aggregate=SeqMeanTokenMean(),
    )
