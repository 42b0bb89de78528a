"""XRPO."""

from __future__ import annotations

from policyopt.methods.group.grpo import grpo
from policyopt.parts.novelty import NoveltyAdvantage
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rollout.allocate import Allocated


@method(parent=grpo, arxiv="2510.06672", code="UIUC-MLSys/XRPO", confidence="secondary")
def xrpo(
    novelty: float = 2.5,
    cap: float = 0.5,
    base: int = 4,
    phases: int = 3,
    alpha: float = 0.05,
    bonus: float = 0.5,
    examples: int = 2,
    corpus: int = 1024,
    low: float | None = 0.2,
    high: float | None = 0.2,
    kl_coef: float = 0.04,
    epochs: int = 1,
    group_size: int = 8,
) -> Recipe:
    r"""Responses go to the prompts that are least understood, hopeless ones are shown solved problems, and unexpected
    right answers earn more.

    .. math:: \Pi_q = h_q(n_q) - h_q(n_q + 1) + \lambda\sqrt{\log(1 + T)/n_q},\qquad
              A'_i = A_i + \min\big(\max(\lambda_{nov}(1 - \eta_i), 0), \kappa A_i\big)

    h is the half width of the Student interval of a prompt's mean reward; eta compares a response's mean
    log-probability with the group's; A is GRPO's advantage, over groups of unlike size with ``group_size`` responses on
    average. The last ``corpus`` solved problems are remembered from step to step. lambda_nov = ``novelty``, kappa =
    ``cap``, lambda = ``bonus``. Source: arXiv:2510.06672, from third parties' descriptions: the form of the bonus and of
    the rise are recalled, alpha and lambda are not known. Our reading: the mean of the log-probabilities runs over all
    responses of the group; seeded responses are trained on in their context.
    """
    return grpo(low, high, kl_coef, epochs=epochs).replace(
        rollout=Allocated(
            size=group_size, base=base, phases=phases, alpha=alpha, bonus=bonus, examples=examples, corpus=corpus
        ),
        advantage=NoveltyAdvantage(novelty=novelty, cap=cap),
    )
