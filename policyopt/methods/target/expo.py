"""ExPO."""

from __future__ import annotations

from policyopt.methods.group.grpo import grpo
from policyopt.parts import Likelihood
from policyopt.parts.control import Schedule
from policyopt.parts.source import BySource
from policyopt.parts.target import OwnTokens
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rollout.target import SelfExplained


@method(parent=grpo, arxiv="2507.02834", code="HumainLab/ExPO_rl_reasoning_by_explanation", confidence="secondary")
def expo(
    sft_coef: float = 0.01,
    anneal_steps: int | None = None,
    explanations: int = 1,
    low: float | None = 0.2,
    high: float | None = 0.2,
    kl_coef: float = 0.04,
    group_size: int = 8,
) -> Recipe:
    r"""Self-Explanation Policy Optimization: the policy explains the right answer once it is told it, and learns to say
    that untold.

    .. math:: L = L_{GRPO} - \frac{\beta}{P}\sum_q\log\pi_\theta(\tilde c_q, a^*_q \mid q),\qquad
              \tilde c_q \sim \pi_\theta(\cdot \mid q, a^*_q)

    The explanation c~ and the answer a* stand behind the plain question; beta = ``sft_coef`` weighs the log-likelihood
    of all their tokens, whatever the rewards, so a prompt that the whole group fails at still teaches. It goes linearly
    to 0 over ``anneal_steps`` steps, or stays. Explanations are no members of the group: they have no advantage, no KL,
    no share in its mean. With beta 0 it is GRPO. Source: arXiv:2507.02834, from third parties' accounts. Our reading: a
    sum over tokens and a mean over prompts; every prompt is explained, at every step, by the policy as it is; none is
    filtered out, but an answer that is not the true one makes way for it. The model has to understand what it is told;
    of the embedded models, those of the testbeds ``requests:TASK`` do. The size of beta is not known: 0.01, for sums
    over some tens of tokens, is ours. ExP-DPO, the form with pairs, is :func:`~policyopt.parts.preference.dpo_loss` of
    explanations against failed responses; it is not this method.
    """
    parent = grpo(low, high, kl_coef=kl_coef, group_size=group_size)
    apart = parent.replace(
        advantage=BySource(inner=parent.advantage, auxiliary=False), aggregate=OwnTokens(inner=parent.aggregate)
    )
    if not sft_coef:
        return apart
    at = len(parent.regularizers)
    falling = Schedule(field=f"regularizers.{at}.coef", start_value=sft_coef, end_value=0.0, steps=anneal_steps or 1)
    return apart.replace(
        rollout=SelfExplained(size=group_size, explanations=explanations),
        regularizers=(*parent.regularizers, Likelihood(coef=sft_coef, rows="auxiliary", mean="prompt")),
        controllers=(falling,) if anneal_steps else (),
    )
