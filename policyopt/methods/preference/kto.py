"""KTO."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.methods.preference.dpo import dpo
from policyopt.part import NonNegative, Positive, Unit, part
from policyopt.parts import Contrast, FromProgram, RowScore, RowSelector, Score
from policyopt.parts.pairing.pairs import row_credit
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch
from policyopt.sources.given import Labelled, Mismatched


@part
class Prospect(Contrast):
    r"""Single responses, good or bad, by how much their score is beyond a point of reference, or short of it.

    .. math:: \ell_i = \lambda_D\big(1 - \sigma(\beta(h_i - z))\big)\text{ if good},\quad
              \lambda_U\big(1 - \sigma(\beta(z - h_i))\big)\text{ if bad};\qquad L = \mathrm{mean}_i\,\ell_i,\quad
              z = sg\Big[\max\Big(0, \frac1{|M|}\sum_{j\in M}h_j\Big)\Big]

    Good are the responses of an advantage above 0. M are the rows of ``mismatched``: they give the point of reference and have no
    loss. z is 0 where there are none. What is far beyond z, or far short of it, has no gradient any more: the value saturates on both
    ends. Sources: KTO, arXiv:2402.01306, eq. 7 and 8, and the authors' ContextualAI/HALOs.
    """

    score: Score = RowScore(against="reference")
    """h, the number that stands for a response."""
    beta: Positive = 0.1
    """Scale of the scores: how fast the value saturates."""
    desirable: NonNegative = 1.0
    """:math:`\\lambda_D`, what good responses weigh."""
    undesirable: NonNegative = 1.0
    """:math:`\\lambda_U`, what bad ones weigh."""
    mismatched: RowSelector | None = FromProgram(main=False)
    """M, the rows that answer another prompt than theirs; None for a z of 0, where all rows are labelled."""

    unit: ClassVar[Unit] = "batch"

    @property
    def needs(self) -> frozenset[str]:
        """What the score and the selector of rows read."""
        return super().needs | (self.mismatched.needs if self.mismatched else frozenset())

    def others(self, batch: Batch) -> Tensor:
        """Which rows are of M, boolean [N]."""
        if self.mismatched is None:
            return torch.zeros(len(batch.mask), dtype=torch.bool, device=batch.mask.device)
        return self.mismatched(batch)

    def point(self, batch: Batch) -> Tensor:
        """z, a number without gradient."""
        others = self.others(batch)
        h = torch.where(others, self.score(batch).detach(), 0.0)
        return (h.sum() / others.sum().clamp(min=1)).clamp(min=0)

    def losses(self, batch: Batch) -> Tensor:
        """The loss of each row, [N], 0 on those of M."""
        gain = self.beta * (self.score(batch) - self.point(batch))
        good = self.desirable * torch.sigmoid(-gain)
        return torch.where(
            self.others(batch), 0.0, torch.where(row_credit(batch) > 0, good, self.undesirable * torch.sigmoid(gain))
        )

    def rows(self, batch: Batch) -> Tensor:
        labelled = (~self.others(batch)).sum().clamp(min=1)
        return self.losses(batch) * (len(batch.mask) / labelled)

    def metrics(self, log_ratio: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        return {"reference_point": self.point(batch).expand_as(batch.mask)}


@method(
    parent=dpo,
    arxiv="2402.01306",
    code="ContextualAI/HALOs",
    confidence="code",
    claim=Claim(
        "Texts that are good or bad, one by one, teach as much as pairs do: it needs no pairs to answer as often right as DPO does.",
        "pairs",
        (Effect("accuracy", "higher", -0.02),),
        both={"steps": 10},
    ),
)
def kto(
    beta: float = 0.1, desirable_weight: float = 1.0, undesirable_weight: float = 1.0, zero: bool = False
) -> Recipe:
    r"""Kahneman-Tversky Optimization: single texts that are good or bad, and a value that saturates in gains and in losses.

    .. math:: L = \frac1N\sum_i\begin{cases}\lambda_D(1 - \sigma(\beta(h_i - z))) & \text{good}\\
              \lambda_U(1 - \sigma(\beta(z - h_i))) & \text{bad}\end{cases},\qquad h = \sum_t\log\frac{\pi_\theta}{\pi_{ref}}(y_t)

    z, the point of reference, estimates the KL to the reference: the mean h of texts behind prompts that they do not answer (each prompt with
    the text of the step's next one), at least 0, without gradient. A step has two prompts or more. ``zero`` takes z = 0 and passes no such rows
    (APO-zero on unpaired texts, arXiv:2408.06266). With n_D good and n_U bad texts the paper advises weights for which
    :math:`\lambda_Dn_D / (\lambda_Un_U)` is between 1 and 4/3. Defaults from the authors' code. Our reading: the shift runs over the whole step, where
    HALOs and TRL have it inside a micro-batch.
    """
    return dpo().replace(
        source=Labelled() if zero else Mismatched(),
        surrogate=Prospect(
            beta=beta, desirable=desirable_weight, undesirable=undesirable_weight,
            mismatched=None if zero else FromProgram(main=False),
        ),
    )  # fmt: skip
