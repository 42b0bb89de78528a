"""P3O."""

from __future__ import annotations

from typing import Literal

from policyopt.methods.critic.ppo import ppo
from policyopt.parts import ClippedPair, Normalise, Pairs, RowScore, SeqMeanTokenMean
from policyopt.recipe import Recipe
from policyopt.registry import method


@method(parent=ppo, arxiv="2310.00212", confidence="recalled")
def p3o(
    variant: Literal["separate", "joint"] = "separate",
    clip: float | None = 0.2,
    kl_coef: float = 0.05,
    epochs: int = 4,
    group_size: int = 2,
) -> Recipe:
    r"""Pairwise Proximal Policy Optimization: the advantage of a response is the difference of rewards to another one.

    .. math:: L = -\mathrm{mean}_{pairs}\tfrac12\big[sg(\rho_2)\min(d\rho_1, d\,\mathrm{clip}(\rho_1)) + sg(\rho_1)\min(-d\rho_2, -d\,\mathrm{clip}(\rho_2))\big],
              \qquad \rho_i = \prod_t r_{i,t},\quad d = R'_1 - R'_2

    R' is the reward minus ``kl_coef`` times the log-ratio of the old policy to the reference. ``joint`` clips
    :math:`x = \log\rho_1 - \log\rho_2` to plus and minus epsilon instead: :math:`-\frac12 sg(\rho_1\rho_2)\min(dx, d\,\mathrm{clip}(x))`. A
    number added to all rewards of a prompt changes nothing; there is no critic. On-policy with two responses the
    gradient is RLOO's. From general knowledge of the paper; epsilon 0.2 and beta 0.05 are ours. Our reading: where the
    gradient stops, the factor 1/2, and all pairs of larger groups.
    """
    return ppo(kl_coef=kl_coef, epochs=epochs, group_size=group_size).replace(
        advantage=Normalise(centre="group", scale="none"),
        surrogate=Pairs(score=RowScore(against="old"), link=ClippedPair(clip=clip, joint=variant == "joint")),
        aggregate=SeqMeanTokenMean(),
        critic=None,
    )
