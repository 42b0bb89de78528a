"""DCPO, the distribution-centric one."""

from __future__ import annotations

from policyopt.methods.entropy.aepo import aepo
from policyopt.parts.thermostat import TargetGap
from policyopt.parts.virtual import VirtualTemperature
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rollout.group import Group


@method(parent=aepo, arxiv="2601.12730", code="597358816/DCPO", confidence="code")
def dcpo_distribution(
    entropy_target: float = 0.5,
    t_high: float = 1.2,
    t_low: float = 0.8,
    alpha_cap: float = 0.1,
    reward_threshold: float = 0.05,
    low: float | None = 0.2,
    high: float | None = 0.2,
    dual: float | None = 3.0,
    minibatches: int = 1,
    group_size: int = 8,
) -> Recipe:
    r"""AEPO without the second rollout: rewarded answers are reweighted as if a hotter or colder policy had drawn them.

    .. math:: A'_{i,t} = (1-\alpha)A_i + \alpha\,1[R_i > c]\,\frac{\pi_{old}^T}{\pi_{old}}(y_{i,t}),\qquad
              \frac{\alpha}{1-\alpha} = \frac{\min(|H_0-\hat H|, cap)}{\mathrm{mean}_i\,1[R_i > c]}

    T = ``t_high`` while the entropy of the step before is no higher than ``entropy_target``, else ``t_low``; both
    distributions are the old policy's. The rest is AEPO's dual-clip PPO over the token mean. At the target alpha is
    0 and the advantage GRPO's. Defaults from the authors' code (targets of 0.25 to 1, groups of 5 there). Our reading: the mix is convex
    as in the code, where the paper adds the terms; alpha is 0 without a rewarded row.
    """
    parent = aepo(low=low, high=high, dual=dual, minibatches=minibatches)
    return parent.replace(
        rollout=Group(size=group_size),
        advantage=VirtualTemperature(hot=t_high, cold=t_low, threshold=reward_threshold),
        select=(),
        controllers=(TargetGap("advantage.gap", entropy_target, alpha_cap, alpha_cap),),
    )
