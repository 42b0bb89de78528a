"""TDPO."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.methods.preference.dpo import dpo
from policyopt.part import Finite, Statistic, Unit, part
from policyopt.parts import JSD, RowScore, Score, Side
from policyopt.parts.select.rows import RowSelector
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch, masked

FORWARD = JSD(beta=0.0, target="reference")
"""KL(ref || policy) of the next token."""


@part
class WithForwardKL(Score):
    r"""The log-ratio of a response to the reference, and the forward KL along it.

    .. math:: s = \rho + \alpha D,\qquad \rho = \sum_t\log\frac{\pi_\theta}{\pi_{ref}}(y_t),\quad
              D = \sum_t KL\big(\pi_{ref}(\cdot|y_{<t})\,\|\,\pi_\theta(\cdot|y_{<t})\big)

    in nats, over the whole vocabulary. No gradient goes through D on the rows of ``held``. Source: TDPO, arXiv:2404.11999, and
    the authors' code.
    """

    alpha: Finite = 0.5
    """alpha."""
    held: RowSelector | None = Side()
    """The rows whose D is a number alone; None for no row."""

    live: ClassVar[tuple[Statistic, ...]] = (FORWARD,)
    unit: ClassVar[Unit] = "group"

    @property
    def needs(self) -> frozenset[str]:
        """What the reference thinks of the texts, and what the selector of rows reads."""
        return frozenset({"ref_logp"}) | (self.held.needs if self.held else frozenset())

    def divergence(self, batch: Batch) -> Tensor:
        """D, [N]."""
        return masked(batch.stat(FORWARD), batch.mask).sum(-1)

    def __call__(self, batch: Batch) -> Tensor:
        d = self.divergence(batch)
        d = d if self.held is None else torch.where(self.held(batch), d.detach(), d)
        return RowScore(against="reference")(batch) + self.alpha * d


@method(
    parent=dpo,
    arxiv="2404.11999",
    code="Vance0124/Token-level-Direct-Preference-Optimization",
    confidence="code",
    claim=Claim(
        "Held by a forward KL along each text, the policy stays nearer to the reference than under DPO, and as many pairs come to be in order.",
        "pairs",
        (Effect("loglik/chosen", "higher", 0.05), Effect("pairs/accuracy", "higher", -0.02)),
        both={"steps": 20, "optim.lr": 2e-3},
    ),
)
def tdpo(variant: Literal[1, 2] = 2, beta: float = 0.1, alpha: float = 0.5) -> Recipe:
    r"""Token-level DPO: the preference model of single tokens, in which the forward KL along each of the two texts counts.

    .. math:: L = -\mathrm{mean}_{pairs}\log\sigma(z),\qquad z_1 = \beta\big[(\rho_w - \rho_l) - (D_l - D_w)\big],\quad
              z_2 = \beta\big[(\rho_w - \rho_l) - \alpha(D_l - sg\,D_w)\big]

    rho is the log-ratio to the reference, D the KL from the reference to the policy, summed along the text, over the whole
    vocabulary (the ``variant`` 1 does not read alpha). z_2 pulls the policy back to the reference along the rejected text alone; z_1
    pushes it away from it along the chosen one too. alpha 0 is DPO. Defaults from the authors' code; they advise variant 1 for
    low learning rates and 2 for higher ones.
    """
    score: dict[str, Any] = {"alpha": 1.0, "held": None} if variant == 1 else {"alpha": alpha}
    return dpo(beta=beta).set("surrogate.score", WithForwardKL(**score))
