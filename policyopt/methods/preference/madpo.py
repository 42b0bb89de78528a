"""MADPO."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from policyopt.claims import Claim, Effect
from policyopt.methods.preference.dpo import dpo
from policyopt.part import NonNegative, part
from policyopt.parts import PairWeight
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch
from policyopt.sources.given import PreferencePairs


@part
class AdaptiveMargin(PairWeight):
    r"""Pairs weigh as if their labels had been drawn at another margin of rewards: a larger one for hard pairs, a smaller one
    for easy pairs.

    .. math:: u = \frac{\sigma(c\,h)}{\sigma(h)}\text{ for } h > -\tau,\text{ else } 1;\qquad
              c = c_{min} + \frac{c_{max} - c_{min}}{1 + \frac{c_{max} - 1}{1 - c_{min}}e^{\lambda(|h| - \tau)}},\quad h = r_w - r_l

    c falls from near c_max at h = 0 over 1 at :math:`|h| = \tau` to c_min. The weights of the two orders of a pair, each as often as
    :math:`\sigma(\pm h)` has it, add up to 1. Source: MADPO, arXiv:2510.05342, and the authors' code.
    """

    column: str = "score"
    """r, a column [N] of the batch: what a reward model says of each text."""
    c_max: Annotated[float, Field(ge=1)] = 2.0
    """The largest factor on a margin, for pairs that the reward model cannot tell apart."""
    c_min: Annotated[float, Field(gt=0, le=1)] = 0.5
    """The smallest one, for pairs that are far apart."""
    lam: NonNegative = 1.0
    """lambda, how fast it falls."""
    tau: NonNegative = 6.907
    """The margin that stays as it is."""

    @property
    def needs(self) -> frozenset[str]:
        """The column."""
        return frozenset({self.column})

    def gap(self, batch: Batch, better: Tensor, worse: Tensor) -> Tensor:
        """h, [P]."""
        r = batch.columns()[self.column]
        return r[better] - r[worse]

    def factor(self, h: Tensor) -> Tensor:
        """c, [P]."""
        up, down = self.c_max - 1, 1 - self.c_min
        if not up or not down:  # the limits: of two ends at 1 there is nothing between
            return torch.ones_like(h)
        return self.c_min + (self.c_max - self.c_min) / (1 + up / down * (self.lam * (h.abs() - self.tau)).exp())

    def __call__(self, batch: Batch, better: Tensor, worse: Tensor) -> Tensor:
        h = self.gap(batch, better, worse)
        return torch.where(h > -self.tau, (logsigmoid(self.factor(h) * h) - logsigmoid(h)).exp(), 1.0)


@method(
    parent=dpo,
    arxiv="2510.05342",
    code="sirano1004/Margin-Apative-Direct-Preference-Optimization",
    confidence="code",
    claim=Claim(
        "Pairs that are hard to tell apart weigh more and easy ones less: more held-out pairs come to be in order than with DPO.",
        "pairs",
        (Effect("pairs/accuracy", "higher", 0.01),),
        both={"steps": 10},
    ),
)
def madpo(
    beta: float = 0.1,
    c_max: float = 2.0,
    c_min: float | None = None,
    lam: float = 1.0,
    tau: float = 6.907,
    column: str = "score",
) -> Recipe:
    r"""Margin-Adaptive DPO: each pair weighs by how far apart a reward model finds its texts.

    .. math:: L = -\mathrm{mean}_{pairs}\;u(h)\log\sigma(z),\qquad u = \frac{\sigma(c(|h|)\,h)}{\sigma(h)},\quad h = r_w - r_l

    z is DPO's. The target of z becomes c h: larger than h where the pair is hard (c near ``c_max``), smaller where it is easy (c near
    ``c_min``, which is 1/c_max unless it is given). A pair whose label the reward model disputes weighs less than 1, and 1 again where it
    does so by more than ``tau``. r is a number that the task brings for each text: ``chosen_score`` and ``rejected_score`` for the column ``score``,
    from a reward model that was fitted to the same pairs before. Defaults from the authors' code (tau is ln 999; the ablation
    has c_max 4).
    """
    weight = AdaptiveMargin(column=column, c_max=c_max, c_min=1 / c_max if c_min is None else c_min, lam=lam, tau=tau)
    return dpo(beta=beta).replace(source=PreferencePairs(columns=(column,))).set("surrogate.weight", weight)
