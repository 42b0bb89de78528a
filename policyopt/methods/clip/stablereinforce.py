"""StableReinforce."""

from __future__ import annotations

from policyopt.methods.baseline.reinforce import reinforce
from policyopt.parts import (
    ClampedTokenRatio,
    Consistency,
    Correctness,
    KLPenalty,
    PPOClip,
    SeqMeanTokenMean,
    SigmaFilter,
)
from policyopt.parts.base import Shape
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rollout.group import Group


@method(parent=reinforce, arxiv="2505.02835", code="yfzhang114/r1_reward", confidence="code")
def stablereinforce(
    low: float | None = 0.2,
    high: float | None = 0.2,
    ratio_min: float = 1e-3,
    ratio_max: float = 1e3,
    sigma: float = 3.0,
    consistency_weight: float = 0.5,
    format_weight: float = 0.5,
    kl_coef: float = 1e-3,
    group_size: int = 1,
) -> Recipe:
    r"""REINFORCE with PPO's clip that does not blow up: log-ratios clamped, outliers of the advantage dropped.

    .. math:: r = \exp\,\mathrm{clip}\Big(\log\frac{\pi_\theta}{\pi_{old}}, \log d_{min}, \log d_{max}\Big),\qquad
              z = \frac{A - \mu}{\sigma_A},\qquad A' = z\,[|z|\le k],\qquad
              L = \frac1N\sum_i\frac1{|y_i|}\sum_t\max(-rA', -\mathrm{clip}(r, 1\pm\epsilon)A')

    A is the reward to go with a KL penalty on every token, standardised over all tokens of the batch; k = ``sigma``.
    The reward is :math:`[right](1 + w_c\,c) + w_f\,[formatted]`, where c (1, 0 or -1) is a judge's word on whether the
    answer follows from the reasoning; without such a judge it is 0. The clamp leaves a bad token with an exploding
    ratio a finite loss and no gradient. Source: arXiv:2505.02835, section 3; defaults from the authors' script. Our
    reading: the three-sigma rule of the paper (the code compares the standardised value with the raw mean plus and
    minus 3).
    """
    penalty: tuple[Shape, ...] = (KLPenalty(coef=kl_coef),) if kl_coef else ()
    return reinforce(baseline="none").replace(
        rollout=Group(size=group_size),
        shape=(
            Correctness(right=1.0, wrong=0.0, formatted=format_weight),
            Consistency(coef=consistency_weight),
            *penalty,
        ),
        advantage=SigmaFilter(sigma=sigma),
        ratio=ClampedTokenRatio(ratio_min=ratio_min, ratio_max=ratio_max),
        surrogate=PPOClip(low=low, high=high),
        aggregate=SeqMeanTokenMean(),
    )
