"""EXO."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from policyopt.claims import Claim, Effect
from policyopt.methods.preference.dpo import dpo
from policyopt.part import Positive, part
from policyopt.parts import Margin, Preference
from policyopt.recipe import Recipe
from policyopt.registry import method


@part
class ReverseKL(Preference):
    r"""The KL from the policy's preference to that of the label, where some labels may be flipped.

    .. math:: \ell(z) = q\log\frac{q}{1-\epsilon} + (1-q)\log\frac{1-q}{\epsilon},\qquad q = \sigma(z)

    Its minimum, 0, is at :math:`q = 1 - \epsilon`; :class:`~policyopt.parts.Logistic` with the same smoothing is the KL the other way round.
    Where the policy is sure of the wrong order the gradient vanishes. Source: EXO, arXiv:2402.00856, eq. 17 (pairs).
    """

    beta: Positive = 0.1
    """Scale of the difference."""
    margin: Margin | None = None
    """m, by how much z is to exceed 0; 0 without one."""
    smoothing: Annotated[float, Field(gt=0, lt=0.5)] = 1e-3
    """epsilon, the share of labels that are taken to be flipped; at 0 the loss has no bound."""

    def loss(self, z: Tensor) -> Tensor:
        up, down = logsigmoid(z), logsigmoid(-z)
        return up.exp() * (up - math.log(1 - self.smoothing)) + down.exp() * (down - math.log(self.smoothing))


@method(
    parent=dpo,
    arxiv="2402.00856",
    code="haozheji/exact-optimization",
    confidence="code",
    claim=Claim(
        "The KL the other way round seeks the mode that is preferred: more held-out pairs come to be in order than with DPO.",
        "pairs",
        (Effect("pairs/accuracy", "higher", 0.01),),
        both={"steps": 10},
    ),
)
def exo(beta: float = 0.1, label_smoothing: float = 1e-3) -> Recipe:
    r"""Efficient Exact Optimization: the policy's preference is fitted to the label's by the reverse KL, where DPO has the
    forward one.

    .. math:: L = \mathrm{mean}_{pairs}\Big[q\log\frac{q}{1-\epsilon} + (1-q)\log\frac{1-q}{\epsilon}\Big],\qquad q = \sigma(z)

    z is DPO's, epsilon = ``label_smoothing``. Defaults: 1e-3 from the authors' code; beta as in DPO. TRL has it as ``exo_pair``.
    """
    return dpo().set("surrogate.link", ReverseKL(beta=beta, smoothing=label_smoothing))
