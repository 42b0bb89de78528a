"""APO-zero."""

from __future__ import annotations

import torch
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.methods.preference.dpo import dpo
from policyopt.part import Positive, part
from policyopt.parts import Link
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch


@part
class UpAndDown(Link):
    r"""The better text up, the worse one down, each by itself and until it saturates.

    .. math:: \ell = 1 - \sigma(\beta s_w) + \sigma(\beta s_l)

    Source: APO, arXiv:2408.06266, table 1 (APO-zero).
    """

    beta: Positive = 0.1
    """Scale of the scores."""

    def __call__(self, score: Tensor, batch: Batch, better: Tensor, worse: Tensor) -> Tensor:
        return torch.sigmoid(-self.beta * score[better]) + torch.sigmoid(self.beta * score[worse])


@method(
    parent=dpo,
    arxiv="2408.06266",
    code="ContextualAI/CLAIR_and_APO",
    confidence="code",
    claim=Claim(
        "Where the preferred texts are better than what the policy writes, they become likelier, as they do not under DPO.",
        "pairs",
        (Effect("loglik/chosen", "higher", 0.02), Effect("pairs/accuracy", "higher", -0.05)),
        both={"steps": 10},
    ),
)
def apo_zero(beta: float = 0.1) -> Recipe:
    r"""Anchored Preference Optimization for pairs whose preferred text is better than the policy: it becomes likelier, the other one
    less likely.

    .. math:: L = \mathrm{mean}_{pairs}\big[1 - \sigma(\beta h_w) + \sigma(\beta h_l)\big],\qquad h = \sum_t\log\frac{\pi_\theta}{\pi_{ref}}

    Which of the two DPO moves is left open; here the reference is the anchor of both. Where the policy is better than both texts,
    :func:`apo_down` is meant. On single texts it is ``kto(zero=True)``. beta 0.1 is that of the paper's runs. Source: arXiv:2408.06266.
    """
    return dpo().set("surrogate.link", UpAndDown(beta=beta))
