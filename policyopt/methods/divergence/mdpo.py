"""MDPO."""

from __future__ import annotations

from policyopt.claims import Claim, Effect
from policyopt.control import Schedule
from policyopt.methods.critic.ppo import ppo
from policyopt.parts import Proximal, RatioTimesAdvantage
from policyopt.recipe import Recipe
from policyopt.registry import method


@method(
    parent=ppo,
    arxiv="2005.09814",
    code="manantomar/Mirror-Descent-Policy-Optimization",
    confidence="code",
    claim=Claim(
        "Steps of mirror descent need no clip, and do as well as PPO or better.",
        "number_sorting",
        (Effect("accuracy", "higher", -0.01),),
        ours={"epochs": 2, "iterations": 40},
        theirs={"epochs": 2, "kl-coef": 0.0},
    ),
)
def mdpo(
    step_size: float = 1.0,
    iterations: int = 100,
    lam: float = 0.95,
    gamma: float = 1.0,
    epochs: int = 10,
    group_size: int = 1,
) -> Recipe:
    r"""Mirror Descent Policy Optimization: several steps on the importance-weighted return minus a KL to the policy of
    the iteration's start, whose weight grows.

    .. math:: L = \mathrm{mean}_{tok}\Big(-rA + \frac1{t_k}(r\log r - r + 1)\Big),\qquad t_k = t_0\,(1 - k/K)

    t_0 = ``step_size``, k the step of the run, K = ``iterations``; after K steps t stays where it is. The second term is
    an unbiased estimate of KL(new || old). A token is at rest at :math:`r = e^{t_k A}`, the mirror step. Several
    ``epochs`` are essential: the first step on a batch is the plain policy gradient. Defaults: t_0 1 and 10 passes from
    the paper and code, which are about control (there gamma is 0.99). Our reading: the form for tokens and its estimate
    of the KL.
    Raises ``ValueError`` where ``step_size`` is not above 0 or ``iterations`` is below 1.
    """
    if step_size <= 0 or iterations < 1:
        raise ValueError(f"step_size {step_size:g} must be above 0, and iterations {iterations} at least 1")
    return ppo(kl_coef=0.0, gamma=gamma, lam=lam, epochs=epochs, group_size=group_size).replace(
        surrogate=RatioTimesAdvantage(),
        regularizers=(Proximal(coef=1 / step_size, deviation="kl-new-old"),),
        controllers=(
            Schedule(
                field="regularizers.Proximal.coef",
                start_value=1 / step_size,
                end_value=iterations / step_size,
                steps=max(1, iterations - 1),
                shape="reciprocal",
            ),
        ),
    )
