"""WPO."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.methods.preference.dpo import dpo
from policyopt.part import Statistic, part
from policyopt.parts import LogCollision, PairWeight
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch, masked_mean

COLLISION = LogCollision()


@part
class OnPolicyWeight(PairWeight):
    r"""How likely the policy itself would be to write both texts of a pair, by the geometric mean over their tokens.

    .. math:: u = \prod_{y\in\{y_w, y_l\}}\exp\Big(\frac{1}{|y|}\sum_t\log\frac{\pi_\theta(y_t)}{\sum_v\pi_\theta(v)^2}\Big)

    A token counts 1 where it is as likely as what the policy would draw there. Source: WPO, arXiv:2406.11827, eq. 2 (sampled alignment).
    """

    live: ClassVar[tuple[Statistic, ...]] = (COLLISION,)

    def __call__(self, batch: Batch, better: Tensor, worse: Tensor) -> Tensor:
        row = masked_mean(batch.logp - batch.stat(COLLISION), batch.mask, dim=-1)
        return (row[better] + row[worse]).exp()


@method(
    parent=dpo,
    arxiv="2406.11827",
    code="wzhouad/WPO",
    confidence="code",
    claim=Claim(
        "Pairs of others, weighed by how likely the policy would be to write them, are as if it had drawn them: it does better than DPO.",
        "pairs",
        (Effect("pairs/accuracy", "higher", 0.01),),
        both={"steps": 10},
    ),
)
def wpo(beta: float = 0.1) -> Recipe:
    r"""Weighted Preference Optimization: pairs count by how likely the policy itself would be to write both texts.

    .. math:: L = -\mathrm{mean}_{pairs}\;u\log\sigma(z),\qquad u = \prod_{y\in\{y_w,y_l\}}\exp\Big(\frac1{|y|}\sum_t\log\frac{\pi_\theta(y_t)}{\sum_v\pi_\theta(v)^2}\Big)

    z is DPO's, and no gradient goes through u. It is TRL's ``use_weighting``, and fits beside any link: ``surrogate.weight``. beta as in DPO.
    Source: arXiv:2406.11827. The mean is over pairs, whatever the weights add up to.
    """
    return dpo(beta=beta).set("surrogate.weight", OnPolicyWeight())
