"""ROSE."""

from __future__ import annotations

from policyopt.methods.aggregation.dr_grpo import dr_grpo
from policyopt.parts import KL, MixedOutcomes
from policyopt.parts.shortest import ShorterAdvantage
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rollout.branching import SemanticBranching
from policyopt.rollout.tree import Tree


@method(parent=dr_grpo, arxiv="2601.05053", code="ZiqiZhao1/ROSE-rl", confidence="code")
def rose(
    explore: float = 0.5,
    top_k: int = 20,
    min_entropy: float = 0.0,
    alpha: float = 1.0,
    low: float | None = 0.2,
    high: float | None = 0.2,
    kl_coef: float = 1e-3,
    loss_norm: float | None = None,
    rounds: int = 8,
    group_size: int = 8,
) -> Recipe:
    r"""Responses branch off where likely tokens differ in meaning; segments are credited with what they change, less
    where answers are long.

    .. math:: A_{i,t} = \hat V(b_j) - \hat V(b_{j-1}),\qquad
              A_{c,t} \leftarrow A_{c,t} - |A_{c,t}|\Big(1 - \big(\tfrac{|y_s| - b_c}{|y_c| - b_c}\big)^\alpha\Big)

    V is the mean reward of the responses that pass a place where another branched off. With probability ``explore`` a
    response starts from scratch, else from the largest semantic entropy so far, among ``top_k`` tokens compared by
    the recipe's ``rollout.branching.embedder``. The loss is Dr. GRPO's with a KL; prompts with equal outcomes are drawn anew, up to ``rounds`` times.
    Every response is a row with its whole path: a shared token counts once for each response, with the same advantage.
    Source: arXiv:2601.05053 and the authors' code; alpha is one of the four values that were searched. Our reading:
    places at the same depth of different branches have worths of their own, as in the paper.
    """
    branching = SemanticBranching(explore=explore, candidates=top_k, min_entropy=min_entropy)
    return dr_grpo(low, high, loss_norm).replace(
        rollout=Tree(size=group_size, rounds=rounds, branching=branching),
        filter=(MixedOutcomes(),),
        advantage=ShorterAdvantage(alpha=alpha),
        regularizers=(KL(coef=kl_coef, estimator="k3"),) if kl_coef else (),
    )
