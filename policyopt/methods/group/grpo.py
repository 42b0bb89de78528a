"""GRPO."""

from __future__ import annotations

from policyopt.methods.critic.ppo import ppo
from policyopt.parts import KL, Normalise, SeqMeanTokenMean
from policyopt.parts.regularize import Estimator
from policyopt.recipe import Recipe
from policyopt.registry import method


@method(parent=ppo, arxiv="2402.03300", confidence="secondary")
def grpo(
    low: float | None = 0.2,
    high: float | None = 0.2,
    kl_coef: float = 0.04,
    kl: Estimator = "k3",
    epochs: int = 1,
    group_size: int = 8,
) -> Recipe:
    r"""Group Relative Policy Optimization: the other responses to a prompt take the place of the critic.

    .. math:: A_i = \frac{R_i - \mathrm{mean}}{\mathrm{std} + \epsilon},\qquad
              L = \frac1N\sum_i\frac1{|y_i|}\sum_t \max(-r_{i,t}A_i, -\mathrm{clip}(r_{i,t}, 1-\epsilon_l, 1+\epsilon_h)A_i) + \beta\,k3_{i,t}

    Mean and std run over the responses to one prompt; beta = ``kl_coef`` weighs a KL to the reference in the loss,
    unclipped. Source: DeepSeekMath, arXiv:2402.03300, eq. 3 and 4, beta 0.04 from section 4.2. The clip of 0.2 is
    what frameworks take. Our reading: std with ddof 1 and eps 1e-6 (the paper leaves both open); ``group_size`` 8
    where the paper has 64.
    """
    return ppo(low, high, kl_coef=0.0, epochs=epochs, group_size=group_size).replace(
        advantage=Normalise(centre="group", scale="group"),
        aggregate=SeqMeanTokenMean(),
        regularizers=(KL(coef=kl_coef, estimator=kl),) if kl_coef else (),
        critic=None,
    )
