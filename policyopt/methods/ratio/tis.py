"""TIS, and the masked forms of the same correction."""

from __future__ import annotations

from typing import Literal

from policyopt.claims import Claim
from policyopt.methods.critic.ppo import ppo
from policyopt.parts import Rejection, SamplerMismatch
from policyopt.parts.weight.mismatch import Mode
from policyopt.recipe import Recipe
from policyopt.registry import method


@method(
    parent=ppo,
    confidence="secondary",
    claim=Claim(
        "Weighed by trainer over sampler, losses do not collapse where the two give the same tokens other "
        "probabilities.",
        beyond="Sampler and trainer are one model in float32 here, which agree to 1e-6 nats: there is nothing to "
        "correct.",
    ),
)
def tis(
    mode: Mode = "token_truncate",
    weight_low: float | None = None,
    weight_high: float | None = 2.0,
    normalise: bool = False,
    reject: Literal["none", "k1", "k2", "k3"] = "none",
    reject_over: Literal["token", "sum", "mean", "max"] = "mean",
    reject_above: float = 0.1,
    low: float | None = 0.2,
    high: float | None = 0.2,
    kl_coef: float = 0.05,
    epochs: int = 4,
    minibatches: int = 1,
    group_size: int = 1,
) -> Recipe:
    r"""PPO whose loss is weighted by trainer over sampler: engines that give the same weights other probabilities make
    on-policy data off-policy.

    .. math:: L = \frac1{\sum_i|y_i|}\sum_{i,t} w_{i,t}\max(-rA, -\mathrm{clip}(r)A),\qquad
              w_{i,t} = sg\Big[\min\Big(\frac{\pi_{old}}{\mu_{old}}(y_{i,t}), C\Big)\Big],\qquad r = \frac{\pi_\theta}{\pi_{old}}

    mu_old is the sampler's log-probability, pi_old the trainer's at the same weights (one forward pass more). ``mode``
    is the form above (truncated importance sampling, C = ``weight_high``), its masked one (IcePop: weights outside the
    bounds are 0), the same with the product of a response's ratios, or a mask of rows by their geometric mean
    (``geo_mask``). ``normalise`` divides weights by their mean. ``reject`` masks tokens, or whole responses (``reject_over``), of which
    an estimate of KL(mu_old || pi_old) lies above ``reject_above`` nats. Weights never change what PPO clips, and a silent token
    keeps its place in the divisor.

    Sources: "Your Efficient RL Framework Secretly Brings You Off-Policy RL Training" (2025); IcePop, arXiv:2510.18855,
    with bounds 0.5 and 5; verl and TRL. Default C = 2 (verl). Our reading: TIS has no lower bound.
    """
    recipe = ppo(low, high, kl_coef=kl_coef, epochs=epochs, minibatches=minibatches, group_size=group_size)
    weight = SamplerMismatch(mode=mode, low=weight_low, high=weight_high, normalise=normalise)
    if reject == "none":
        return recipe.replace(weight=(weight,))
    return recipe.replace(weight=(weight, Rejection(estimator=reject, over=reject_over, high=reject_above)))
