"""ARPO (agentic)."""

from __future__ import annotations

from typing import Literal

from policyopt.methods.group.grpo import grpo
from policyopt.parts.subtree import SharedAdvantage
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rollout.branching import EntropyJump
from policyopt.rollout.tree import Tree


@method(parent=grpo, arxiv="2507.19849", code="dongguanting/ARPO", confidence="code")
def arpo_agentic(
    credit: Literal["soft", "hard"] = "soft",
    alpha: float = 0.5,
    beta: float = 0.2,
    beam: int = 2,
    initial: int = 8,
    segment: int = 32,
    probe: int = 20,
    low: float | None = 0.2,
    high: float | None = 0.2,
    kl_coef: float = 0.0,
    epochs: int = 1,
    group_size: int = 16,
) -> Recipe:
    r"""Agentic Reinforced Policy Optimization: part of the responses branch off where the policy has become unsure.

    .. math:: P = \mathrm{clip}(\alpha + \beta\,(H_t - H_{init}), 0, 1),\qquad A_i = \frac{R_i - \mathrm{mean}}{\mathrm{std} + \epsilon},\qquad
              \text{hard: } A_{i,t} = \frac1d\sum_{j \ni node(i,t)} A_j

    M = ``group_size`` responses, ``initial`` of them from the prompt; the others fork with probability P at the end of a
    step, or start from the prompt where too few did. Every response is a row with its whole path, so a shared token
    counts once for each of them: with its own advantage (``soft``: the sum is the mean, as their ratios are equal), or
    with the mean of those that share it (``hard``). Without tools a step is ``segment`` tokens, and the bonus for using
    several tools does not exist; the reward is the judge's. Source: arXiv:2507.19849; defaults from the authors' code.
    Our reading: entropies over the logarithm of the vocabulary; a random threshold, as in the code.
    """
    branching = EntropyJump(initial=initial, alpha=alpha, beta=beta, beam=beam, segment=segment, probe=probe)
    recipe = grpo(low, high, kl_coef, epochs=epochs).replace(rollout=Tree(size=group_size, branching=branching))
    return recipe if credit == "soft" else recipe.replace(advantage=SharedAdvantage())
