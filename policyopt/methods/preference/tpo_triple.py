"""TPO."""

from __future__ import annotations

from typing import Literal

from policyopt.claims import Claim, Effect
from policyopt.methods.preference.cpo import cpo
from policyopt.parts import AllPairs, FixedMargin, FromProgram, Likelihood, Logistic, Pairs, RowScore
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.sources.given import Triples


@method(
    parent=cpo,
    arxiv="2405.16681",
    code="sahsaeedi/TPO",
    confidence="code",
    claim=Claim(
        "A gold text beside the pair makes one step of fine-tuning and preference tuning: more answers are right than after fine-tuning on "
        "the gold texts.",
        "pairs",
        (Effect("accuracy", "higher", 0.02),),
        both={"steps": 10},
        against="sft",
    ),
)
def tpo_triple(
    variant: Literal["tpo", "tpo-l"] = "tpo", beta: float = 0.2, alpha: float = 0.9, gamma: float = 0.5
) -> Recipe:
    r"""Triple Preference Optimization: the likelihood of a gold text, and a contrast of two others without a reference.

    .. math:: L = -\mathrm{mean}_{pairs}\log\sigma(z) - \frac{\alpha}{\sum|y_{gold}|}\sum\log\pi_\theta(y_{gold,t}),\qquad
              z = \beta(\ell_w - \ell_l)\quad\text{or}\quad \beta\Big(\frac{\ell_w}{|y_w|} - \frac{\ell_l}{|y_l|}\Big) - \gamma

    The second z is that of ``tpo-l``, from a later version of the paper (gamma is read by it alone). The gold text is the ``completion``
    of a row: the best of four answers, where the pair is the second best and the worst. Gold the preferred text, it is
    :func:`cpo`. Defaults from the authors' README. Our reading: the prompt is not learnt.
    """
    longer = variant == "tpo-l"
    return cpo().replace(
        source=Triples(),
        surrogate=Pairs(
            score=RowScore(reduce="mean" if longer else "sum"),
            link=Logistic(beta=beta, margin=FixedMargin(size=gamma) if longer else None),
            choose=AllPairs(rows=FromProgram()),
        ),
        regularizers=(Likelihood(coef=alpha, rows=FromProgram(main=False)),),
    )
