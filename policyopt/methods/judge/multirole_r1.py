"""MultiRole-R1."""

from __future__ import annotations

from policyopt.claims import Claim, Effect
from policyopt.methods.group.grpo import grpo
from policyopt.parts import WeightedSum
from policyopt.recipe import Recipe
from policyopt.registry import method


@method(
    parent=grpo,
    arxiv="2507.20187",
    code="yumeng-10/multirole-r1",
    confidence="paper",
    claim=Claim(
        "A reward for varied texts makes them more varied, and as many answers are right.",
        "diverse:chain_sum",
        (Effect("component/diversity", "higher", 0.02), Effect("accuracy", "higher", -0.02)),
    ),
)
def multirole_r1(
    delta: float = 0.9,
    low: float | None = 0.2,
    high: float | None = 0.2,
    kl_coef: float = 0.04,
    group_size: int = 8,
) -> Recipe:
    r"""Accuracy and a varied text: the second still tells responses apart where all are right or all are wrong.

    .. math:: R = \delta R_{acc} + (1 - \delta) R_{div},\qquad R_{div} = \tfrac18\sum_k D_k

    D are eight statistics of words and sentences (:func:`~policyopt.judging.diversity.diversity`). A task written
    ``diverse:TASK`` has them beside the score of its own judge; a judge without parts keeps its score, which leaves GRPO.
    Source: arXiv:2507.20187; its weight 0.1 of the diversity is read as 1 - delta. Supervised training on chains of
    several roles comes before and lies outside.
    """
    return grpo(low, high, kl_coef=kl_coef, group_size=group_size).replace(
        shape=(WeightedSum(weights=(("accuracy", delta), ("diversity", 1 - delta))),)
    )
