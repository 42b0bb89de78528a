"""DiscoPOP."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from policyopt.claims import Claim, Effect
from policyopt.methods.preference.dpo import dpo
from policyopt.part import Positive, part
from policyopt.parts import Margin, Preference
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import held


@part
class LogRatioModulated(Preference):
    r"""Between the logistic loss and the exponential one, by where the pair stands.

    .. math:: \ell(z) = (1 - m)\,\big(-\log\sigma(z)\big) + m\,e^{-z},\qquad m = \sigma(z/\tau)

    Wrong pairs have the logistic loss, right ones the exponential. The gradient goes through m; the loss is not convex. Source:
    DiscoPOP, arXiv:2406.08414, eq. 5. z is held to at least -20 in the exponential, so that it is finite.
    """

    beta: Positive = 0.05
    """Scale of the difference."""
    margin: Margin | None = None
    """m, by how much z is to exceed 0; 0 without one."""
    tau: Positive = 0.05
    """tau, the width of the passage from one to the other."""

    def loss(self, z: Tensor) -> Tensor:
        m = torch.sigmoid(z / self.tau)
        return -(1 - m) * logsigmoid(z) + m * (-held(z)).exp()


@method(
    parent=dpo,
    arxiv="2406.08414",
    code="SakanaAI/DiscoPOP",
    confidence="code",
    claim=Claim(
        "A loss that a language model has written by searching does better than the logistic one, on tasks that it was not found on too.",
        "pairs",
        (Effect("pairs/accuracy", "higher", 0.01),),
        both={"steps": 10},
    ),
)
def discopop(beta: float = 0.05, tau: float = 0.05) -> Recipe:
    r"""Discovered Preference Optimization: a blend of the logistic and of the exponential loss, found by a language model.

    .. math:: L = \mathrm{mean}_{pairs}\big[-(1 - m)\log\sigma(z) + m\,e^{-z}\big],\qquad m = \sigma(z/\tau)

    z is DPO's. Defaults from the paper: beta 0.05 and tau 0.05, at which it was found. TRL divides :math:`\beta(h_w - h_l)` by the same tau
    (``discopop_tau``). Source: arXiv:2406.08414.
    """
    return dpo().set("surrogate.link", LogRatioModulated(beta=beta, tau=tau))
