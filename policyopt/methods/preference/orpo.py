"""ORPO."""

from __future__ import annotations

import torch
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.methods.preference.cpo import cpo
from policyopt.part import part
from policyopt.parts import Likelihood, Logistic, Pairs, RowScore, Score, Side
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch


@part
class LogOdds(Score):
    r"""The logarithm of the odds of a response, [N]: :math:`a - \log(1 - e^a)` with a its mean log-probability.

    A response that is certain (a = 0) counts as one of a = -1e-6. Source: ORPO, arXiv:2403.07691, eq. 4.
    """

    def __call__(self, batch: Batch) -> Tensor:
        a = RowScore(reduce="mean")(batch).clamp(max=-1e-6)
        return a - torch.log(-torch.expm1(a))


@method(
    parent=cpo,
    arxiv="2403.07691",
    code="xfactlab/orpo",
    confidence="code",
    claim=Claim(
        "Fine-tuning that holds the rejected text down as it goes needs no second stage: more answers are right than after fine-tuning "
        "alone.",
        "pairs",
        (Effect("accuracy", "higher", 0.02),),
        both={"steps": 10},
        against="sft",
    ),
)
def orpo(lam: float = 0.1) -> Recipe:
    r"""Odds Ratio Preference Optimization: fine-tuning on the preferred text, with a mild penalty on the odds of the
    rejected one, and without a reference.

    .. math:: L = \mathrm{mean}_{pairs}\big[-a_w - \lambda\log\sigma(\Lambda)\big],\qquad
              \Lambda = \log\frac{e^{a_w}}{1-e^{a_w}} - \log\frac{e^{a_l}}{1-e^{a_l}},\quad a = \frac{1}{|y|}\sum_t\log\pi_\theta(y_t)

    lambda = ``lam``, 0.1 in the authors' Mistral runs (learning rate 5e-6). Our reading: the likelihood is the paper's mean over
    the tokens of each text; the authors' code and TRL take the mean over all tokens of the batch, the prompt among them. No
    relative of :func:`orpo_chi2`, which restricts occupancies.
    """
    return cpo().replace(
        surrogate=Pairs(score=LogOdds(), link=Logistic(beta=1.0), coef=lam),
        regularizers=(Likelihood(coef=1.0, rows=Side(), mean="response"),),
    )
