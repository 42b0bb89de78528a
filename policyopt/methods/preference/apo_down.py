"""APO-down."""

from __future__ import annotations

import torch
from torch import Tensor

from policyopt.claims import Claim
from policyopt.methods.preference.dpo import dpo
from policyopt.part import Positive, part
from policyopt.parts import Link
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch


@part
class BothDown(Link):
    r"""The better text down, and the worse one further below it.

    .. math:: \ell = \sigma(\beta s_w) + 1 - \sigma(\beta(s_w - s_l))

    Source: APO, arXiv:2408.06266, table 1 (APO-down).
    """

    beta: Positive = 0.1
    """Scale of the scores."""

    def __call__(self, score: Tensor, batch: Batch, better: Tensor, worse: Tensor) -> Tensor:
        good, bad = self.beta * score[better], self.beta * score[worse]
        return torch.sigmoid(good) + torch.sigmoid(bad - good)


@method(
    parent=dpo,
    arxiv="2408.06266",
    code="ContextualAI/CLAIR_and_APO",
    confidence="code",
    claim=Claim(
        "Where the policy is better than both texts of its pairs, neither should become likelier, and it does better for that.",
        beyond="The pairs of the tasks here have a preferred text that is better than what the policy writes.",
    ),
)
def apo_down(beta: float = 0.1) -> Recipe:
    r"""Anchored Preference Optimization for pairs that are both worse than the policy: both texts become less likely, the rejected one
    more so.

    .. math:: L = \mathrm{mean}_{pairs}\big[\sigma(\beta h_w) + 1 - \sigma(\beta(h_w - h_l))\big],\qquad h = \sum_t\log\frac{\pi_\theta}{\pi_{ref}}

    See :func:`apo_zero` for pairs of which one is better. beta 0.1 is that of the paper's runs. Source: arXiv:2408.06266.
    """
    return dpo().set("surrogate.link", BothDown(beta=beta))
