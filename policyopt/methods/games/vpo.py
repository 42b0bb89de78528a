"""VPO."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.methods.preference.dpo import dpo
from policyopt.part import Finite, Regularizer, Unit, part
from policyopt.parts import BestWorst, FromProgram, RowScore, RowSelector, Score, Side
from policyopt.parts.select.rows import picked
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch
from policyopt.sources.draw import GroupFrom


@part
class MeanScore(Regularizer):
    r"""The mean score of some responses, :math:`\frac{c}{|S|}\sum_{i\in S} s_i`; 0 where S is empty. It goes down unless c is below 0.

    Source: the optimal value in VPO, arXiv:2405.19320.
    """

    coef: Finite = 0.01
    """c."""
    score: Score = RowScore(against="reference")
    """s."""
    rows: RowSelector | None = None
    """S; None for all rows."""

    unit: ClassVar[Unit] = "batch"

    @property
    def needs(self) -> frozenset[str]:
        """What the score and the selector read."""
        return self.score.needs | (self.rows.needs if self.rows else frozenset())

    def __call__(self, batch: Batch) -> Tensor:
        counts = picked(self.rows, batch)
        return self.coef * (counts * self.score(batch)).sum() / counts.sum().clamp(min=1)


@method(
    parent=dpo,
    arxiv="2405.19320",
    confidence="recalled",
    claim=Claim(
        "With the sign of pessimism DPO on given pairs is not led astray where these say nothing: held-out answers do not get worse.",
        "pairs",
        (Effect("accuracy", "higher", 0.01), Effect("drop", "lower", -0.01)),
        both={"steps": 10},
        ours={"optimism": False, "calibration": "chosen", "alpha": 1.0},
    ),
)
def vpo(
    beta: float = 0.1,
    alpha: float = 0.01,
    optimism: bool = True,
    calibration: Literal["reference", "chosen"] = "reference",
) -> Recipe:
    r"""Value-Incentivized Preference Optimization: DPO that believes in the best (online) or in the worst (offline) of what its pairs
    leave open.

    .. math:: L = -\mathrm{mean}_{pairs}\log\sigma(\beta(h_w - h_l)) + s\,\alpha\beta\,\mathrm{mean}_{y\sim\pi_{cal}} h(y),\qquad
              h = \sum_t\log\frac{\pi_\theta}{\pi_{ref}}(y_t)

    The fit of a reward that also looks at the value of its optimal policy, :math:`J^*`, with the rewards of pi_cal held at a mean of 0:
    :math:`\ell_{BT}(r) - s\alpha J^*(r)`. With s = 1 that is ``optimism``, which pushes the calibration texts down and
    explores; without it s = -1, pessimism, which pulls them up and imitates. ``calibration`` says which texts: "reference", a third response to each prompt, which
    the reference draws beside two of the policy that a judge compares (online); or "chosen", the preferred texts of given pairs
    (offline). The gradient of the term is :math:`\pm\alpha\beta/N_{cal}` on every token. As pessimism on chosen texts it is RPO without
    its mean over tokens, as optimism on texts of the reference :func:`xpo` (there alpha is ours times beta).

    Source: arXiv:2405.19320, from general knowledge of it; alpha has no published default, 0.01 is ours. Our reading: means in both terms.
    """
    parent = dpo(beta)
    if calibration == "chosen":
        rows: RowSelector = Side()
    else:
        rows = FromProgram(main=False)
        parent = parent.replace(source=GroupFrom(size=3, own=2))
        parent = parent.set("surrogate.choose", BestWorst(rows=FromProgram()))
    term = MeanScore(coef=alpha * beta * (1 if optimism else -1), rows=rows)
    return parent.replace(regularizers=(term,) if alpha else ())
