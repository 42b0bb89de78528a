"""SLiC-HF."""

from __future__ import annotations

from policyopt.claims import Claim, Effect
from policyopt.methods.preference.cpo import cpo
from policyopt.parts import AllPairs, FromProgram, Hinge, Likelihood, Pairs, RowScore
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.sources.given import Triples


@method(
    parent=cpo,
    arxiv="2305.10425",
    confidence="secondary",
    claim=Claim(
        "Calibrated sequence likelihoods put pairs in order, and the target's likelihood keeps the text: as many pairs in order as with DPO, "
        "the preferred texts likelier.",
        "pairs",
        (Effect("loglik/chosen", "higher", 0.05), Effect("pairs/accuracy", "higher", -0.02)),
        both={"steps": 10},
        against="dpo",
    ),
)
def slic(margin: float = 1.0, lam: float = 0.1) -> Recipe:
    r"""Sequence Likelihood Calibration with Human Feedback: the preferred text is to be likelier than the other by a margin,
    and a target text stays likely.

    .. math:: L = \mathrm{mean}_{pairs}\Big[\max(0, \delta - \ell_w + \ell_l) - \lambda\ell_{target}\Big],\qquad \ell = \sum_t\log\pi_\theta(y_t)

    delta = ``margin``, lambda = ``lam`` (1.0 and 0.1 in HALOs; the paper's were not found). The target is the ``completion`` of a row,
    what a model was fine-tuned on before. Inside the margin the pull is the same however wrong a pair is; beyond it only the
    target learns. No reference. Our reading: sums over tokens, as in the formula. TRL's ``hinge`` is another loss, with a
    reference and no target (see :func:`rso`).
    """
    return cpo().replace(
        source=Triples(),
        surrogate=Pairs(score=RowScore(), link=Hinge(width=margin), choose=AllPairs(rows=FromProgram())),
        regularizers=(Likelihood(coef=lam, rows=FromProgram(main=False), mean="prompt"),),
    )
