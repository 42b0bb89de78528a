"""RL-Struct."""

from __future__ import annotations

from policyopt.claims import Claim, Effect
from policyopt.methods.group.grpo import grpo
from policyopt.parts import WeightedSum
from policyopt.recipe import Recipe
from policyopt.registry import method


@method(
    parent=grpo,
    arxiv="2512.00319",
    confidence="secondary",
    claim=Claim(
        "Rewards for syntax and structure beside the content teach structured output where the content's alone "
        "does not.",
        "json",
        (Effect("accuracy", "higher", 0.1), Effect("format", "higher", 0.1)),
        against="rl-struct",
        theirs={"valid": 0.0, "struct": 0.0, "format": 0.0, "length": 0.0},
    ),
)
def rl_struct(
    valid: float = 1.0,
    struct: float = 1.0,
    format: float = 0.5,
    correct: float = 0.5,
    length: float = 0.25,
    low: float | None = 0.2,
    high: float | None = 0.2,
    kl_coef: float = 0.04,
    group_size: int = 8,
) -> Recipe:
    r"""Structured output by reward: five rules from syntax to content, added up, and GRPO.

    .. math:: R = w_v R_{valid} + w_s R_{struct} + w_f R_{format} + w_c R_{correct} + w_l R_{length}

    The text parses strictly; the required keys are there; it stands in its fence and nothing around it; the content
    agrees with the reference; it is not too long. The task ``json`` brings a judge with these parts
    (:func:`~policyopt.data.structured.judge_json`); a judge without parts keeps its score. Source: arXiv:2512.00319,
    after third parties. Our reading: the weights, the linear fall of the length part, and the graded share of keys.
    """
    weights = {"valid": valid, "struct": struct, "format": format, "correct": correct, "length": length}
    return grpo(low, high, kl_coef=kl_coef, group_size=group_size).replace(
        shape=(WeightedSum(weights=tuple(weights.items())),)
    )
