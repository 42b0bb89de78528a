"""Pass@k training and PKPO."""

from __future__ import annotations

from typing import Literal

from policyopt.methods.group.grpo import grpo
from policyopt.parts import Correctness, MaxAtK, PassAtK
from policyopt.recipe import Recipe
from policyopt.registry import method


@method(parent=grpo, arxiv="2508.10751", code="RUCAIBox/Passk_Training", confidence="code")
def pass_at_k(
    k: int = 4,
    form: Literal["passk", "pkpo", "pkpo-loo"] = "passk",
    low: float | None = 0.2,
    high: float | None = 0.2,
    kl_coef: float = 0.0,
    group_size: int = 8,
) -> Recipe:
    r"""Train the chance that at least one of k responses is right: credit that fades on easy prompts and keeps
    exploration alive.

    .. math:: \bar R = 1 - \binom{n-c}{k} \Big/ \binom nk,\qquad A_{right} = \frac{1-\bar R}{\sigma+\epsilon},\qquad
              A_{wrong} = \frac{1 - \bar R - \binom{n-c-1}{k-1} / \binom{n-1}{k-1}}{\sigma+\epsilon}

    n responses to a prompt, c of them right. ``passk`` is that closed form of arXiv:2508.10751, the reward 1 or 0;
    ``pkpo`` and ``pkpo-loo`` take the gradient of the best reward among k for any rewards, without and with its
    leave-one-out baseline (PKPO, arXiv:2505.15201); ``pkpo-loo`` with k = ``group_size`` trains the best response
    alone, by its distance from the second best. Our reading: the loss is GRPO's without KL, k = 4.
    """
    recipe = grpo(low, high, kl_coef=kl_coef, group_size=group_size)
    if form == "passk":
        return recipe.replace(shape=(Correctness(right=1.0, wrong=0.0),), advantage=PassAtK(k=k))
    return recipe.replace(advantage=MaxAtK(k=k, leave_one_out=form == "pkpo-loo"))
