"""SIREN."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.control import FirstValue
from policyopt.methods.aggregation.dr_grpo import dr_grpo
from policyopt.part import Fraction, NonNegative, Regularizer, Statistic, Unit, part
from policyopt.parts import AboveQuantile
from policyopt.recipe import Recipe, Update
from policyopt.registry import method
from policyopt.rows import Batch, masked_mean


@part
class NucleusEntropy(Statistic):
    r"""Entropy in nats of the distribution cut to its nucleus and renormalised.

    .. math:: H^p = -\sum_{v\in V_p}\tilde\pi(v)\log\tilde\pi(v),\qquad \tilde\pi = \pi / \textstyle\sum_{V_p}\pi

    With probabilities in falling order and c_j their running sum, the nucleus V_p has the tokens with c_j < p
    (``exclusive``: the token that crosses p is out) or those with c_{j-1} < p (``inclusive``: it is in, the usual
    top-p). Which tokens are in is held constant in the gradient. A position whose first token reaches p has entropy 0.
    Source: SIREN, arXiv:2509.25133; exclusive is the authors' code, which sorts the 10,000 largest logits only, a
    shortcut that is left out here.
    """

    p: Fraction = 0.8
    """Mass of the nucleus."""
    edge: Literal["exclusive", "inclusive"] = "exclusive"
    """What happens to the token that crosses p."""

    def __call__(self, logits: Tensor, target: Tensor, others: Mapping[str, Tensor]) -> Tensor:
        ordered = logits.sort(-1, descending=True).values
        with torch.no_grad():
            probability = ordered.softmax(-1)
            mass = probability.cumsum(-1) - (probability if self.edge == "inclusive" else 0.0)
            inside = mass < self.p
            inside[:, 0] = True  # alone it has entropy 0, as an empty nucleus has
        kept = torch.where(inside, ordered, -math.inf)
        weight = kept.softmax(-1)
        return kept.logsumexp(-1) - (weight * torch.where(inside, ordered, 0.0)).sum(-1)


@part
class EntropyAnchor(Regularizer):
    r"""Hold the entropy of a response's most uncertain positions at its first value.

    .. math:: \beta\,(\bar H - \bar H_0)^2,\qquad \bar H = \frac1N\sum_i\frac{\sum_t m_{i,t}H_{i,t}}{\sum_t m_{i,t}}

    m is the selector's choice, held constant in the gradient; H the quantity that it ranks by. A response without a
    selected token counts as 0. Below the anchor the push is upward, above it downward. Source: SIREN, arXiv:2509.25133,
    and the authors' code (Linn3a/siren). The mean is the mini-batch's, so the square punishes its noise too.
    """

    coef: NonNegative = 0.005
    """beta."""
    anchor: NonNegative | None = None
    """H-bar_0 in nats; None, until a controller has measured it, is no loss."""
    tokens: AboveQuantile = AboveQuantile(of=NucleusEntropy(), scope="row", strict=True)
    """Which positions, and which entropy."""

    unit: ClassVar[Unit] = "batch"

    @property
    def needs(self) -> frozenset[str]:
        return self.tokens.needs

    @property
    def live(self) -> tuple[Statistic, ...]:
        return self.tokens.live

    def mean(self, batch: Batch) -> Tensor:
        """H-bar, a scalar."""
        rows = masked_mean(self.tokens.values(batch), self.tokens(batch).to(batch.mask), dim=-1)
        return rows.sum() / max(1, len(rows))

    def __call__(self, batch: Batch) -> Tensor:
        if self.anchor is None:
            return batch.mask.new_zeros(())
        return self.coef * (self.mean(batch) - self.anchor) ** 2

    def metrics(self, batch: Batch) -> Mapping[str, Tensor]:
        return {"entropy/peak": self.mean(batch).expand_as(batch.mask)}


@method(
    parent=dr_grpo,
    arxiv="2509.25133",
    code="Linn3a/siren",
    confidence="code",
    claim=Claim(
        "Entropy of nucleus and peaks, held at its first value, keeps exploration alive: more is solved within "
        "several attempts.",
        "many-answers",
        (Effect("entropy", "higher", 0.01), Effect("pass@4", "higher", 0.01)),
    ),
)
def siren(
    beta: float = 0.005,
    top_p: float = 0.8,
    peak_quantile: float = 0.8,
    anchor: float | None = None,
    edge: Literal["exclusive", "inclusive"] = "exclusive",
    low: float | None = 0.28,
    high: float | None = 0.28,
    loss_norm: float | None = None,
    minibatches: int = 1,
    group_size: int = 8,
) -> Recipe:
    r"""Dr. GRPO that holds the entropy of nucleus and peaks at its first value, instead of raising it without end.

    .. math:: L = L_{PG} + \beta\,(\bar H - \bar H_0)^2,\qquad
              \bar H = \frac1N\sum_i\frac{\sum_t 1[H^p_{i,t} > q_i]\,H^p_{i,t}}{\sum_t 1[H^p_{i,t} > q_i]}

    H^p [N, T] is the entropy of the nucleus of mass ``top_p``, q_i [N] its ``peak_quantile`` inside response i. The
    anchor H_0 is measured in the first step, or given. Defaults from the authors' scripts (16 updates per rollout
    there: ``minibatches``). Our reading: the token that crosses top_p is out of the nucleus, as in the code; the
    regulariser begins with the second step, since in the first the policy is the anchor's.
    """
    peaks = AboveQuantile(NucleusEntropy(top_p, edge), q=peak_quantile, scope="row", strict=True)
    return dr_grpo(low, high, loss_norm, group_size).replace(
        regularizers=(EntropyAnchor(beta, anchor, peaks),),
        controllers=(FirstValue("regularizers.EntropyAnchor.anchor", metric="entropy/peak"),),
        update=Update(minibatches=minibatches),
    )
