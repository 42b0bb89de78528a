"""CPO."""

from __future__ import annotations

from typing import Literal

from policyopt.claims import Claim, Effect
from policyopt.methods.preference.dpo import dpo
from policyopt.parts import Likelihood, Logistic, Pairs, RowScore, Side
from policyopt.recipe import Recipe
from policyopt.registry import method


@method(
    parent=dpo,
    arxiv="2401.08417",
    code="fe1ixxu/ALMA",
    confidence="code",
    claim=Claim(
        "Without a reference, and with the likelihood of the preferred text in its place, as many pairs come to be in order as with "
        "DPO, and the preferred texts stay likely.",
        "pairs",
        (Effect("loglik/chosen", "higher", 0.05), Effect("pairs/accuracy", "higher", -0.02)),
        both={"steps": 10},
    ),
)
def cpo(beta: float = 0.1, alpha: float = 1.0, nll: Literal["token-mean", "sum"] = "token-mean") -> Recipe:
    r"""Contrastive Preference Optimization: DPO whose reference finds everything equally likely, with the likelihood of the
    preferred text beside it.

    .. math:: L = -\mathrm{mean}_{pairs}\log\sigma\big(\beta(\ell_w - \ell_l)\big) - \alpha\frac{\sum_{pairs}\ell_w}{\sum_{pairs}|y_w|},\qquad
              \ell = \sum_t\log\pi_\theta(y_t)

    One model is in memory. ``nll="sum"`` is the paper's formula, :math:`-\alpha\,\mathrm{mean}_{pairs}\ell_w`; what the authors ran is the mean over
    tokens. Sums make the margin depend on the lengths of the two (see :func:`simpo`). Authors' runs: beta 0.1, alpha 1,
    learning rate 1e-4 with LoRA.
    """
    likelihood = Likelihood(coef=alpha, rows=Side(), mean="token" if nll == "token-mean" else "prompt")
    return dpo().replace(
        surrogate=Pairs(score=RowScore(), link=Logistic(beta=beta)), regularizers=(likelihood,) if alpha else ()
    )
