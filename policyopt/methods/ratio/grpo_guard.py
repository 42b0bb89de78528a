"""GRPO-Guard."""

from __future__ import annotations

from policyopt.methods.group.grpo import grpo
from policyopt.parts import CentredRatio, PositionWeight
from policyopt.parts.reference import Reset
from policyopt.recipe import Recipe, Update
from policyopt.registry import method


@method(parent=grpo, arxiv="2510.22319", confidence="secondary")
def grpo_guard(
    low: float | None = 0.2,
    high: float | None = 0.2,
    scale: tuple[float, ...] = (1.0,),
    step_weight: tuple[float, ...] = (1.0,),
    minibatches: int = 4,
    group_size: int = 8,
) -> Recipe:
    r"""GRPO whose log-ratios are centred and scaled at every step, so that the clip acts on both sides alike.

    .. math:: \log r'_{i,t} = \big(\log r_{i,t} + KL(\pi_{old}\|\pi_\theta)_{i,t}\big)\,s_t,\qquad
              L = \frac1N\sum_i\frac1{|y_i|}\sum_t w_t\max(-r'A, -\mathrm{clip}(r', 1-\epsilon_l, 1+\epsilon_h)A)

    Log-ratios of samples from the old policy have the mean -KL, so that good tokens hardly reach the upper bound. The
    paper is about flow models: a denoising step is a Gaussian with standard deviation :math:`\sigma_t\sqrt{dt_t}`, which
    is s_t, and w_t = 1/dt_t. Our reading for tokens: s_t = w_t = 1 (``scale`` and ``step_weight`` give them by
    position, the last value for all later ones), KL of whole next-token distributions, and the reference, reset to the
    policy before every step, as the old policy. Source: a framework's documentation, arXiv:2510.22319 behind it; the
    clip is GRPO's, where images have 2e-6.
    """
    return grpo(low, high, kl_coef=0.0, group_size=group_size).replace(
        ratio=CentredRatio(scale=scale),
        weight=() if set(step_weight) == {1.0} else (PositionWeight(weights=step_weight),),
        reference=Reset(every=1),
        update=Update(minibatches=minibatches),
    )
