"""SimPO."""

from __future__ import annotations

from policyopt.claims import Claim, Effect
from policyopt.methods.preference.cpo import cpo
from policyopt.parts import FixedMargin, Logistic, Pairs, RowScore
from policyopt.recipe import Recipe
from policyopt.registry import method


@method(
    parent=cpo,
    arxiv="2405.14734",
    code="princeton-nlp/SimPO",
    confidence="code",
    claim=Claim(
        "With the mean log-probability of a text as its reward, longer texts are not favoured: answers stay shorter than with DPO, and as "
        "many pairs come to be in order.",
        "long-pairs",
        (Effect("length", "lower", 5.0), Effect("pairs/accuracy", "higher", -0.05)),
        both={"steps": 30},
        against="dpo",
    ),
)
def simpo(beta: float = 2.0, gamma: float = 1.0, alpha: float = 0.0) -> Recipe:
    r"""Simple Preference Optimization: pairs are compared by the mean log-probability of their tokens, beyond a margin, and
    without a reference.

    .. math:: L = -\mathrm{mean}_{pairs}\log\sigma(r_w - r_l - \gamma),\qquad r = \frac{\beta}{|y|}\sum_t\log\pi_\theta(y_t)

    What is trained is what ranks answers as they are drawn, and repeating a text does not change its reward. The authors'
    code has :math:`\gamma/\beta` as its parameter (0.1 to 0.8 in their runs, beta 2 to 10, learning rate 3e-7 to 1e-6, batch 128).
    ``alpha`` adds CPO's likelihood of the preferred text (CPO-SimPO).
    """
    return cpo(alpha=alpha).replace(
        surrogate=Pairs(score=RowScore(reduce="mean"), link=Logistic(beta=beta, margin=FixedMargin(size=gamma)))
    )
