"""Dr. GRPO."""

from __future__ import annotations

from policyopt.claims import Claim, Effect
from policyopt.methods.group.grpo import grpo
from policyopt.parts import Normalise, SeqMeanTokenSumNorm
from policyopt.recipe import Recipe
from policyopt.registry import method


@method(
    parent=grpo,
    arxiv="2503.20783",
    code="sail-sg/understand-r1-zero",
    confidence="code",
    claim=Claim(
        "Without the division by its length a wrong answer gains nothing by being long: responses stay short, and as many are right.",
        "biased-length",
        (Effect("length/mean", "lower", 1.0), Effect("accuracy", "higher", -0.03)),
        theirs={"kl-coef": 0.0},
    ),
)
def dr_grpo(
    low: float | None = 0.2, high: float | None = 0.2, loss_norm: float | None = None, group_size: int = 8
) -> Recipe:
    r"""GRPO done right: no division by the response's length, none by the group's standard deviation, no KL.

    .. math:: A_i = R_i - \mathrm{mean},\qquad L = \frac{1}{N L_{max}}\sum_i\sum_t \max(-r_{i,t}A_i, -\mathrm{clip}(r_{i,t})A_i)

    L_max = ``loss_norm``, a constant in tokens; None takes the run's budget, as in the authors' code. Dividing by the
    length favours long wrong answers, dividing by the std favours prompts that are nearly always or nearly never
    solved.
    """
    return grpo(low, high, kl_coef=0.0, group_size=group_size).replace(
        advantage=Normalise(centre="group", scale="none"),
        aggregate=SeqMeanTokenSumNorm(norm=loss_norm),
    )
