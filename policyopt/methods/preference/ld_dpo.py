"""LD-DPO."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.methods.preference.dpo import dpo
from policyopt.part import Fraction, Unit, part
from policyopt.parts import AllPairs, PairSelector, TokenScale
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch


@part
class SharedLength(TokenScale):
    r"""Tokens count less from where the other response of the pair has ended.

    .. math:: c_t = 1\text{ for } t \le l,\quad \alpha\text{ for } t > l;\qquad l = \min(|y_w|, |y_l|)

    t counts the tokens of the response, from 1; its end token is one of them. Only the longer one of a pair is affected.
    Source: LD-DPO, arXiv:2409.06411. Our reading: of a response in several pairs, l is the smallest.
    """

    alpha: Fraction = 0.5
    """What a token beyond l counts: 1 is as before, 0 cuts the longer response."""
    choose: PairSelector = AllPairs()
    """Which responses are pairs."""

    unit: ClassVar[Unit] = "group"

    @property
    def needs(self) -> frozenset[str]:
        """What the selector of pairs reads."""
        return self.choose.needs

    def __call__(self, batch: Batch) -> Tensor:
        length, (better, worse) = batch.mask.sum(-1), self.choose(batch)
        short = torch.minimum(length[better], length[worse])
        for side in (better, worse):
            length = length.scatter_reduce(0, side, short, "amin")
        beyond = batch.mask.cumsum(-1) > length[:, None]
        return torch.where(beyond, self.alpha, torch.ones_like(batch.mask))


@method(
    parent=dpo,
    arxiv="2409.06411",
    confidence="secondary",
    claim=Claim(
        "Where longer texts happen to be preferred, less of the length is learnt: answers stay shorter than with DPO, and as many pairs "
        "come to be in order.",
        "long-pairs",
        (Effect("length", "lower", 5.0), Effect("pairs/accuracy", "higher", -0.05)),
        both={"steps": 30},
    ),
)
def ld_dpo(beta: float = 0.1, alpha: float = 0.5) -> Recipe:
    r"""Length-Desensitised DPO: what the longer text of a pair has beyond the length of the shorter one counts less.

    .. math:: L = -\mathrm{mean}_{pairs}\log\sigma\big(\beta(\hat h_w - \hat h_l)\big),\qquad
              \hat h = \sum_{t\le l}\log\frac{\pi_\theta}{\pi_{ref}} + \alpha\sum_{t>l}\log\frac{\pi_\theta}{\pi_{ref}},\quad l = \min(|y_w|, |y_l|)

    In DPO the side with more tokens has the larger share of the gradient, so that length is learnt beside quality. alpha 1 is DPO,
    and alpha 0 cuts the longer text. Which alpha is best differs from model to model in the paper; 0.5 is what TRL's notes
    begin with, which have it for all their losses (``ld_alpha``). Our reading: the end token is a token of the response.
    """
    return dpo(beta=beta).set("surrogate.score.scale", SharedLength(alpha=alpha))
