"""BRPO, the objective of AnytimeReasoner."""

from __future__ import annotations

from typing import Literal

from policyopt.methods.group.grpo import grpo
from policyopt.parts import SeqMeanTokenSumNorm
from policyopt.parts.exits import BudgetRelative
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rollout.exits import EarlyExits


@method(parent=grpo, arxiv="2505.13438", code="sail-sg/AnytimeReasoner", confidence="code")
def brpo_anytime(
    budget_prior: Literal["uniform", "linear", "base"] = "linear",
    exits: int = 3,
    answers: int = 5,
    inv_lambda: float = 2.0,
    baseline: Literal["brpo", "v1only", "v2only"] = "brpo",
    low: float | None = 0.2,
    high: float | None = 0.2,
    epochs: int = 1,
    thoughts: int = 4,
) -> Recipe:
    r"""Budget relative policy optimisation: the answer shall be good at whatever budget the thought is cut.

    .. math:: A_s = \sum_{j\ge s}P_j m_j - \frac{s V^1_s + (S-s)V^2_s}{S},\qquad A_{s,a} = x_{s,a} - m_s

    ``thoughts`` thoughts for each prompt, cut at ``exits`` equal steps of the budget, ``answers`` answers from each cut;
    A_s is for the tokens of the thought between two cuts, A_{s,a} for those of an answer. The tokens that close a thought
    are not trained on, those of a thought once. Source: arXiv:2505.13438 and the authors' code (sail-sg/AnytimeReasoner),
    losses over a constant. Our reading: 4 thoughts, 3 cuts and 5 answers make
    64 rows, which divide a batch, where the authors have 8, 4 and 4; a thought that ends without its mark is answered from its end
    (there it scores 0).
    """
    shares = tuple((s + 1) / exits for s in range(exits))
    rows = thoughts * (1 + exits * answers)
    return grpo(low, high, kl_coef=0.0, epochs=epochs).replace(
        rollout=EarlyExits(size=rows, exits=exits, answers=answers, fractions=shares, once=True),
        advantage=BudgetRelative(budgets=shares, prior=budget_prior, inv_lambda=inv_lambda, baseline=baseline),
        aggregate=SeqMeanTokenSumNorm(),
    )
