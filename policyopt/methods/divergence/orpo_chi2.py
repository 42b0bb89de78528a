"""ORPO with the chi-squared divergence (occupancy-regularised policy optimisation)."""

from __future__ import annotations

from typing import Literal

from policyopt.methods.critic.ppo import ppo
from policyopt.parts.divergence import Divergence, OccupancyPenalty, SequenceDivergence
from policyopt.recipe import Recipe
from policyopt.registry import method


@method(parent=ppo, arxiv="2403.03185", code="cassidylaidlaw/orpo", confidence="code")
def orpo_chi2(
    low: float | None = 0.4,
    high: float | None = 0.4,
    coef: float = 8e-4,
    divergence: Divergence = "sqrt-chi2",
    penalty: Literal["loss", "reward"] = "loss",
    limit: float = 10.0,
    floor: float = 1e-4,
    trim: float = 0.01,
    epochs: int = 4,
    group_size: int = 1,
) -> Recipe:
    r"""PPO held to the reference by the chi-squared divergence of whole responses, against hacking of a proxy reward.

    .. math:: L = L_{PPO} + \lambda\sqrt{\max(\widehat{\chi^2}, f)},\qquad
              \widehat{\chi^2} = \frac1N\sum_i\big[E(u_i) + E(-u_i)\big],\qquad u_i = \sum_t\log\frac{\pi_\theta}{\pi_{ref}}(y_{i,t})

    E is exp(u) - 1, a straight line beyond ``limit``; lambda = ``coef``, f = ``floor``. A proxy that correlates with the
    true reward under the reference bounds the true gain by the proxy's, less a multiple of the square root of chi2; no
    KL of tokens does that. Not the preference method ORPO. Defaults from the authors' scripts for RLHF. With
    ``penalty="reward"`` the divergence is taken off the rewards, as the authors do in control tasks; our reading: there
    the log-ratio of the response takes the place of a trained discriminator, which would approach it.
    """
    base = ppo(low, high, kl_coef=0.0, epochs=epochs, group_size=group_size)
    if penalty == "reward":
        return base.replace(shape=(OccupancyPenalty(coef=coef, kind=divergence, trim=trim),))
    return base.replace(regularizers=(SequenceDivergence(coef=coef, kind=divergence, limit=limit, floor=floor),))
