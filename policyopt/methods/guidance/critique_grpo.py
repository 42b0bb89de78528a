"""Critique-GRPO."""

from __future__ import annotations

from policyopt.methods.group.grpo import grpo
from policyopt.parts import EntropyBonus, PolicyShaping, RatioTimesAdvantage, SeqSumTokenSumNorm
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rollout.critique import FunctionCritique, Refined, SelfCritique, VerdictInWords


@method(parent=grpo, arxiv="2506.03106", code="zhangxy-2019/critique-GRPO", confidence="code")
def critique_grpo(
    critique: str = "simple_gt",
    shape_gamma: float = 0.1,
    loss_norm: float | None = None,
    entropy_coef: float = 0.001,
    group_size: int = 8,
) -> Recipe:
    r"""Critique-GRPO: one answer of each group was written after a critique of another one, and is learned as an answer
    to the plain question.

    .. math:: L = -\frac{1}{L_{max}}\sum_{i,t} A_i\,\omega_{i,t} - c_e\bar H,\qquad
              \omega_{i,t} = \frac{p_{i,t}}{p_{i,t} + \gamma}\ \text{ on the refinement},\quad
              \frac{\pi_\theta(y_{i,t})}{\pi_{old}(y_{i,t})} \text{ on the others}

    p is the probability of the token behind the plain question, under the policy that is trained. The critique is
    ``simple`` (right or wrong), ``simple_gt`` (and what the answer is), ``self`` (the policy's own words) or a function
    ``package.module:name`` or ``file.py:name``. The best refinement takes the place of the first response; all are
    normalised together, as in GRPO. No clip, no KL; H is the mean entropy of the tokens. L_max = ``loss_norm`` in
    tokens; None takes the run's budget, as in the code. Source: arXiv:2506.03106 and the authors' code, whose switch
    that would leave out the standard deviation has no effect. Our reading: the sum is not divided by the number of
    rows, as in the code before gradients are accumulated over its micro-batches.
    """
    critics = {"simple": VerdictInWords(show_answer=False), "simple_gt": VerdictInWords(), "self": SelfCritique()}
    if critique not in critics and ":" not in critique:
        names = ", ".join(critics)
        raise ValueError(
            f"critique is {critique!r}: one of {names}, or a function as package.module:name or file.py:name"
        )
    critic = critics[critique] if critique in critics else FunctionCritique(function=critique)
    return grpo(kl_coef=0.0).replace(
        rollout=Refined(size=group_size, critique=critic),
        surrogate=PolicyShaping(gamma=shape_gamma, inner=RatioTimesAdvantage()),
        aggregate=SeqSumTokenSumNorm(norm=loss_norm),
        regularizers=(EntropyBonus(coef=entropy_coef, mean=True),) if entropy_coef else (),
    )
