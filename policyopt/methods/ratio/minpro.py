"""MinPRO."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.methods.clip.cispo import cispo
from policyopt.part import Ratio, Unit, part
from policyopt.parts import TokenRatio
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch


@part
class PrefixMinRatio(Ratio):
    r"""The token ratio times the smallest ratio before it, which stands for the product of all of them.

    .. math:: \log R_{i,t} = \log r_{i,t} + sg\Big[\min_{j<t} \log r_{i,j}\Big]

    The minimum runs over the policy's own tokens; for the first it is 0. Source: MinPRO, arXiv:2601.22718. Our reading:
    no gradient through the minimum (there the whole is a detached weight).
    """

    unit: ClassVar[Unit] = "row"

    def __call__(self, batch: Batch) -> Tensor:
        log_ratio = TokenRatio()(batch)
        own = torch.where(batch.mask.bool(), log_ratio.detach(), math.inf)
        before = torch.nn.functional.pad(own, (1, 0), value=math.inf)[:, :-1].cummin(-1).values
        return log_ratio + torch.where(before.isinf(), 0.0, before)


@method(
    parent=cispo,
    arxiv="2601.22718",
    confidence="secondary",
    claim=Claim(
        "The smallest ratio of the prefix damps what follows a token that has drifted: stable on data that are "
        "several updates old.",
        "stale",
        (Effect("drop", "lower", 0.01), Effect("accuracy", "higher", 0.02)),
        against="grpo",
        theirs={"kl-coef": 0.0},
    ),
)
def minpro(low: float | None = None, high: float | None = 0.28, epochs: int = 1, group_size: int = 8) -> Recipe:
    r"""CISPO with the smallest ratio of the prefix in its weights: one token that has drifted damps all after it.

    .. math:: w_{i,t} = sg\Big[\mathrm{clip}\Big(r_{i,t}\min_{j<t} r_{i,j},\, 1-\epsilon_l,\, 1+\epsilon_h\Big)\Big],\qquad
              L = -\frac{1}{\sum_i|y_i|}\sum_{i,t} w_{i,t} A_i \log\pi_\theta(y_{i,t})

    The exact correction at a token is the product of all ratios up to it, which is unusable; the minimum (1 for the
    first token) stands for the ratios before it. For data that is several updates old. A small ``low`` would undo the
    damping, so there is no lower bound by default; the paper's bounds are not known to us.
    """
    return cispo(low, high, epochs=epochs, group_size=group_size).replace(ratio=PrefixMinRatio())
