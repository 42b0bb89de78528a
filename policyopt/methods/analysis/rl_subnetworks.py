"""RL fine-tunes small subnetworks."""

from __future__ import annotations

from typing import Literal

from policyopt.methods.group.grpo import grpo
from policyopt.parts.probe import UpdateSparsity
from policyopt.recipe import Recipe
from policyopt.registry import method


@method(parent=grpo, arxiv="2505.11711", confidence="recalled")
def rl_subnetworks(
    low: float | None = 0.2,
    high: float | None = 0.2,
    kl_coef: float = 0.04,
    tolerance: float = 1e-5,
    precision: Literal["bfloat16", "float32"] = "bfloat16",
    rank: bool = False,
    group_size: int = 8,
) -> Recipe:
    r"""GRPO that measures which share of the weights it never moves.

    .. math:: \mathrm{sparsity} = 1 - \frac1n\sum_j 1\big[|\theta_j - \theta^0_j| > \epsilon\big]

    Training is GRPO's. At each evaluation the parameters are compared with those of the start, both rounded to
    ``precision``, eps = ``tolerance``: ``sparsity/all``, and one number for each kind of matrix. In the paper RL leaves 70 to
    95 % of the weights of a bfloat16 model as they were, because its data are near the policy; ``kl_coef`` 0 and bounds of
    None take the other suspects away. Source: arXiv:2505.11711, from general knowledge of it.
    """
    return grpo(low, high, kl_coef=kl_coef, group_size=group_size).replace(
        probes=(UpdateSparsity(tolerance=tolerance, precision=precision, rank=rank),)
    )
