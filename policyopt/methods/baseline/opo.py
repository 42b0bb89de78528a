"""OPO."""

from __future__ import annotations

from policyopt.claims import Claim, Effect
from policyopt.methods.baseline.reinforce import reinforce
from policyopt.parts import Normalise, TokenMean
from policyopt.recipe import Recipe
from policyopt.registry import method


@method(
    parent=reinforce,
    arxiv="2505.23585",
    code="volcengine/verl",
    confidence="code",
    claim=Claim(
        "Exactly on policy and with the baseline of least variance the policy keeps more of its entropy than under GRPO, and as many answers are right.",
        "many-answers",
        (Effect("entropy", "higher", 0.02), Effect("accuracy", "higher", -0.02)),
        against="grpo",
        theirs={"kl-coef": 0.0},
    ),
)
def opo(group_size: int = 8) -> Recipe:
    r"""On-Policy RL with Optimal reward baseline: REINFORCE against the group's mean reward, in which responses count by length.

    .. math:: A_i = R_i - \frac{\sum_j |y_j| R_j}{\sum_j |y_j|},\qquad
              L = -\frac{1}{\sum_i |y_i|}\sum_{i,t} A_i \log\pi_\theta(y_{i,t})

    The baseline of least variance weighs each reward by the squared norm of the gradient of its response,
    :math:`b^* = E[\|\nabla\log\pi(y)\|^2 R] / E[\|\nabla\log\pi(y)\|^2]`; where the gradients of single tokens are orthogonal
    and of one size, that norm is the length. So :math:`\sum_i |y_i| A_i = 0`, where GRPO has :math:`\sum_i A_i = 0`. No division by the
    spread, no KL, no entropy term, one update on a fresh batch. Source: arXiv:2505.23585, and verl's ``opo``, which leaves the
    reward of a group of one as it is; our reading: it has no baseline but itself, and its advantage is 0. Our reading too:
    the gradients of all tokens weigh alike (token mean, verl's default), as the derivation has it, so that the mini-batch's number of tokens is a scale and no more.
    """
    return reinforce(baseline="none", group_size=group_size).replace(
        advantage=Normalise(centre="length-weighted", scale="none"), aggregate=TokenMean()
    )
