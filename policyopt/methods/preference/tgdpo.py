"""TGDPO."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from policyopt.claims import Claim
from policyopt.methods.preference.dpo import dpo
from policyopt.part import Finite, NonNegative, RoleName, Unit, part
from policyopt.parts import AllPairs, PairSelector, Side, TokenScale
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch, masked
from policyopt.schema import member


@part
class TokenGuided(TokenScale):
    r"""Tokens of the better text count more where a frozen model likes them, tokens of the worse one where it does not.

    .. math:: c_t = 1 \pm \alpha\hat r_t,\qquad \hat r_t = \beta(\log\pi_{role} - \log\pi_{ref})

    Plus on the better text of a pair, minus on the worse one, and 1 on a text that is both. c is below 0 where
    :math:`|\alpha\hat r| > 1` against the text: the push on that token is then turned around. Source: TGDPO, arXiv:2506.14574.
    """

    role: RoleName = "teacher"
    """The frozen model, one that was trained by DPO or SimPO."""
    alpha: Finite = 0.5
    """alpha; 0 leaves every token alike."""
    beta: NonNegative = 0.1
    """beta, which makes a reward of the log-ratio."""
    choose: PairSelector = AllPairs()
    """Which responses are pairs."""

    unit: ClassVar[Unit] = "group"

    @property
    def needs(self) -> frozenset[str]:
        """What both models think of the texts, and what the selector of pairs reads."""
        return frozenset({member("logp_of", self.role), "ref_logp"}) | self.choose.needs

    def __call__(self, batch: Batch) -> Tensor:
        better, worse = (Side(better=side, choose=self.choose)(batch).to(batch.mask) for side in (True, False))
        reward = masked(self.beta * (batch.logp_of(self.role) - batch.ref_logp), batch.mask)
        return 1 + (better - worse)[:, None] * self.alpha * reward


@method(
    parent=dpo,
    arxiv="2506.14574",
    code="dvlab-research/TGDPO",
    confidence="code",
    claim=Claim(
        "With rewards of tokens from a model that DPO has trained before, DPO wins more often against the same opponents.",
        beyond="It takes a model that another run has trained, and a claim here is one run against another.",
    ),
)
def tgdpo(beta: float = 0.1, alpha: float = 0.5, guide: str = "teacher") -> Recipe:
    r"""Token-level reward Guided DPO: each token is tied to the reference by a strength of its own, which a model that was
    trained before says.

    .. math:: L = -\mathrm{mean}_{pairs}\log\sigma\Big(\sum_{t\in y_w}\beta(1 + \alpha\hat r_t)\log\frac{\pi_\theta}{\pi_{ref}}
              - \sum_{t\in y_l}\beta(1 - \alpha\hat r_t)\log\frac{\pi_\theta}{\pi_{ref}}\Big),\qquad \hat r_t = \beta\log\frac{\pi_{role}}{\pi_{ref}}

    The model of ``guide`` (``--teacher PATH``, or another role by ``--role NAME=PATH``) was trained by DPO or SimPO on the same data from
    the same reference. alpha 0, or a model that is the reference, is DPO. No gradient goes through the weights. Defaults from the
    authors' code (learning rate 7e-7, batch 128). As in the code, the partition functions of the derivation are left out.
    """
    return dpo(beta=beta).set("surrogate.score.scale", TokenGuided(role=guide, alpha=alpha, beta=beta))
