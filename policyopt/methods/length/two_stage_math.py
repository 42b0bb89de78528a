"""Fast-Math-R1."""

from __future__ import annotations

from policyopt.claims import Claim, Effect
from policyopt.methods.group.grpo import grpo
from policyopt.parts import Correctness, LengthReward, ShortestToLongest
from policyopt.recipe import Recipe
from policyopt.registry import method


@method(
    parent=grpo,
    arxiv="2507.08267",
    code="analokmaus/kaggle-aimo2-fast-math-r1",
    confidence="code",
    claim=Claim(
        "A short phase of GRPO with rewards for form, for length by itself and among the group shortens solutions without losing answers.",
        "verbose",
        (Effect("length", "lower", 10.0), Effect("accuracy", "higher", -0.02)),
        against="grpo",
        theirs={"kl-coef": 0.0},
    ),
)
def two_stage_math(
    max_len: float | None = None, max_correct: float = 1.0, min_correct: float = 0.1, min_wrong: float = -1.0, max_wrong: float = -0.1,
    low: float | None = 0.2, high: float | None = 0.2, kl_coef: float = 0.04, group_size: int = 8,
) -> Recipe:  # fmt: skip
    r"""Fast-Math-R1, the second of its two stages: GRPO with three rewards added up, for form, for length by itself, and for length among the group.

    .. math:: R = 1[\text{form}] + \begin{cases}0.1 + \tfrac12\,0.9\,(1 + \cos\pi p) & \text{right}\\ -0.1 - \tfrac12\,0.9\,(1 + \cos\pi p) & \text{wrong}\end{cases} + r_{group},\qquad
              p = \min\big(1, \tfrac{|y|}{L}\big)

    r_group is Kimi k1.5's (:class:`~policyopt.parts.ShortestToLongest`): from 1/2 for the shortest response of the group to -1/2 for the longest, and never above 0 on a wrong one. A short wrong
    answer is worth least. L is ``max_len``, None for the run's budget. The first stage is long supervised fine-tuning on hard problems (``policyopt train sft``, some ten passes), which
    gives the accuracy; this one is some 40 steps. Source: arXiv:2507.08267 and the authors' code. Our reading: lengths in tokens (the code counts
    characters), and the form is that which the task asks for (theirs has the answer in a box before the end of the thought).
    """
    return grpo(low, high, kl_coef=kl_coef, group_size=group_size).replace(
        shape=(
            Correctness(right=0.0, wrong=0.0, formatted=1.0),
            LengthReward(
                curve="cosine",
                reference=max_len,
                right=(max_correct, min_correct),
                wrong=(min_wrong, max_wrong),
                label="cosine",
            ),
            LengthReward(reference=ShortestToLongest(), right=(0.5, -0.5), wrong=(0.5, -0.5), cap=0.0, label="among"),
        )
    )
