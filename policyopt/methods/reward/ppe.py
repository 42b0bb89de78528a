"""Prior prompt engineering."""

from __future__ import annotations

from policyopt.claims import Claim
from policyopt.methods.group.grpo import grpo
from policyopt.parts import Correctness
from policyopt.recipe import Recipe
from policyopt.registry import method


@method(
    parent=grpo,
    arxiv="2505.14157",
    confidence="secondary",
    claim=Claim(
        "The instruction before every question in training decides which behaviour is reinforced.",
        beyond="It takes a model that follows instructions; the embedded one has seen none.",
    ),
)
def ppe(
    accuracy_weight: float = 0.5,
    format_weight: float = 0.5,
    low: float | None = 0.2,
    high: float | None = 0.2,
    kl_coef: float = 0.04,
    group_size: int = 8,
) -> Recipe:
    r"""Prior Prompt Engineering: the instruction before every question decides which behaviour training reinforces.

    .. math:: R = w_a\,1[\text{right}] + w_f\,1[\text{format}]

    The instruction is an option of the run: ``--prior think``, ``plan``, ``code``, ``knowledge`` or ``examples``, or a
    text of your own (:mod:`policyopt.data.prior`). Each asks for a tagged block of its style, then an answer block;
    the format is one of each, well formed, in that order. The optimiser is GRPO's. Source: arXiv:2505.14157. Our
    reading: text outside the two blocks is allowed; what the paper leaves open is as in GRPO here. Without a prior the
    format is the task's own.
    """
    return grpo(low, high, kl_coef=kl_coef, group_size=group_size).replace(
        shape=(Correctness(right=accuracy_weight, wrong=0.0, formatted=format_weight),)
    )
