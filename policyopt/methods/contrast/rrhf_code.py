"""RRHF for code."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.methods.preference.dpo import dpo
from policyopt.part import Unit, part
from policyopt.parts import BestResponse, Hinge, Likelihood, Pairs, PairWeight, RowScore
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch
from policyopt.sources.draw import Group


@part
class SummedByPrompt(PairWeight):
    r"""Every pair counts 1 over the number of prompts: the mean over pairs becomes the mean over prompts of sums over pairs.

    .. math:: u = \frac{|P|}{Q}

    Prompts without a pair count in Q. Source: RRHF, arXiv:2304.05302.
    """

    unit: ClassVar[Unit] = "batch"

    def __call__(self, batch: Batch, better: Tensor, worse: Tensor) -> Tensor:
        return torch.full_like(batch.mask[better, 0], len(better) / max(1, len(batch.group.unique())))


@method(
    parent=dpo,
    arxiv="2312.05657",
    confidence="recalled",
    claim=Claim(
        "Candidates in the order of their rewards and the best one imitated: small models learn from a judge without critic or clip.",
        "number_sorting",
        (Effect("accuracy", "higher", -0.02), Effect("seconds/step", "lower", 0.0)),
        against="ppo",
        theirs={"epochs": 1, "kl-coef": 0.0},
    ),
)
def rrhf_code(
    rank_weight: float = 1.0, ft_weight: float = 1.0, tuning: Literal["sum", "mean"] = "sum", group_size: int = 4
) -> Recipe:
    r"""RRHF for code that is to be fast (PerfRL): candidates are put in the order of their rewards, and the best one is imitated.

    .. math:: L = \frac1Q\sum_q\Big[c_r\sum_{R_i<R_j}\max(0, s_i - s_j) - c_t\sum_t\log\pi_\theta(y_{best,t})\Big],\qquad
              s = \frac{1}{|y|}\sum_t\log\pi_\theta(y_t)

    Pairs in order, and of equal rewards, have no gradient: then only the first best is imitated. ``tuning="mean"`` takes the mean over its
    tokens, as RRHF's code does where the paper has the sum. The reward is the judge's: below what does not compile, then what fails
    its tests, what passes them, and what is also faster by a margin that is beyond the noise of the clock. Only the order of rewards counts. The
    paper's numbers of candidates and rewards were not found: 4 and yours. From general knowledge of the paper. Our reading: the reference
    solution is no candidate.
    """
    best = Likelihood(coef=ft_weight, rows=BestResponse(), mean="prompt" if tuning == "sum" else "response")
    return dpo().replace(
        source=Group(size=group_size),
        surrogate=Pairs(
            score=RowScore(reduce="mean"), link=Hinge(beta=1.0, width=0.0), weight=SummedByPrompt(), coef=rank_weight
        ),
        regularizers=(best,),
    )
