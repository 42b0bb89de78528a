"""DARS."""

from __future__ import annotations

from typing import Literal

from policyopt.methods.aggregation.dr_grpo import dr_grpo
from policyopt.parts import MixedOutcomes
from policyopt.recipe import Recipe, Update
from policyopt.registry import method
from policyopt.rollout.adaptive import MoreForHard


@method(parent=dr_grpo, arxiv="2508.13755", code="yangzhch6/DARS", confidence="code")
def dars(
    target: Literal["equal", "hardness"] = "equal",
    most: int = 32,
    upper_threshold: float = 1.0,
    low: float | None = 0.2,
    high: float | None = 0.2,
    loss_norm: float | None = None,
    epochs: int = 1,
    minibatches: int = 1,
    group_size: int = 8,
) -> Recipe:
    r"""Difficulty Adaptive Rollout Sampling: hard prompts get so many more responses that their total advantage is no
    longer tiny.

    .. math:: A_i = R_i - \mathrm{mean}_{pool},\qquad \Delta N = \min\Big(\Big\lceil\frac{h N/2 - 2Na(1-a)}{2a(1-a)}\Big\rceil,
              N_{max} - N\Big) \text{ where } a < \tfrac12

    N = ``group_size`` responses tell the accuracy a of a prompt; h = 1 (``equal``) or 2(1 - a) (``hardness``, with
    ``most`` = 64 in the paper). Prompts whose pooled accuracy is 0 or at least ``upper_threshold`` are left out. Every
    response counts the same in the loss, so the further ones are not averaged away. DARS-B, its form with breadth, is a
    very large ``--batch`` with ``epochs`` 2 and one mini-batch. Source: arXiv:2508.13755; defaults from the authors' code.
    """
    return dr_grpo(low, high, loss_norm).replace(
        rollout=MoreForHard(size=group_size, most=most, target=target),
        filter=(MixedOutcomes(high=upper_threshold),),
        update=Update(epochs=epochs, minibatches=minibatches),
    )
