"""Entropy terms that know where to stop: a band around history, an anchor at the start."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor

from policyopt.batch import Batch, masked_mean
from policyopt.parts.base import Count, NonNegative, Regularizer, Statistic, Unit, part
from policyopt.parts.select import AboveQuantile
from policyopt.parts.statistic import NucleusEntropy


@part
class EntropyBand(Regularizer):
    r"""An entropy bonus, less a penalty on tokens whose entropy leaves a band around the mean of earlier steps.

    .. math:: -\lambda\,(H_{i,t} - c\,w\,P_{i,t}),\qquad
              P = 0 \text{ where } \kappa_l \bar H_{u_i} < H_{i,t} < \kappa_r \bar H_{u_i},\ \text{else } \alpha

    u_i is the environment turn of the row (0 in tasks with one turn) and H-bar_u the ``history`` of that turn, a field
    that a controller keeps. The penalty exists only in mini-batches that reach turn ``max_turns // 2``, and is 0 for
    turns without history. ``indicator`` is the published form: a constant, so it moves the reported loss and no
    parameter. ``hinge`` acts: alpha times the distance to the band. Source: EPO, arXiv:2509.22576, and the authors'
    code (WujiangXu/EPO), where it is decided by micro-batch.
    """

    coef: NonNegative = 0.001
    """lambda."""
    smooth: NonNegative = 1.0
    """c."""
    low: NonNegative = 0.5
    """kappa_l: lower edge of the band over the historical mean."""
    high: NonNegative = 1.5
    """kappa_r: upper edge of the band over the historical mean."""
    alpha: NonNegative = 0.1
    """Height (indicator) or slope (hinge) of the penalty."""
    phase: NonNegative = 1.0
    """w; a controller may move it."""
    history: tuple[NonNegative, ...] = ()
    """Mean entropy of each turn over the steps before; a controller keeps it."""
    max_turns: Count = 1
    """Most turns of an episode."""
    level: Literal["token", "sequence"] = "token"
    """Whether the entropy of a token or the mean of its row is held against the band."""
    form: Literal["indicator", "hinge"] = "indicator"
    """Shape of the penalty."""

    needs: ClassVar[frozenset[str]] = frozenset({"entropy"})
    unit: ClassVar[Unit] = "batch"

    def applied(self, batch: Batch) -> bool:
        """Whether the mini-batch reaches far enough into episodes for the penalty."""
        return bool((turns(batch) >= self.max_turns // 2).any())

    def penalty(self, batch: Batch) -> Tensor:
        """w P, [N, T]; 0 on padding."""
        turn, known = turns(batch), turns(batch) < len(self.history)
        if not (self.history and self.applied(batch)):
            return torch.zeros_like(batch.mask)
        centre = batch.mask.new_tensor(self.history)[turn.clamp(max=len(self.history) - 1)][:, None]
        entropy = batch.entropy
        if self.level == "sequence":
            entropy = masked_mean(entropy, batch.mask, dim=-1, keepdim=True).expand_as(entropy)
        if self.form == "hinge":
            out = (entropy - self.high * centre).clamp(min=0) + (self.low * centre - entropy).clamp(min=0)
        else:
            out = ((entropy <= self.low * centre) | (entropy >= self.high * centre)).to(batch.mask)
        return torch.where(batch.mask.bool() & known[:, None], self.phase * self.alpha * out, 0.0)

    def __call__(self, batch: Batch) -> Tensor:
        return -self.coef * (batch.entropy - self.smooth * self.penalty(batch))

    def metrics(self, batch: Batch) -> Mapping[str, Tensor]:
        """For each turn u ``turn/u/share`` of the tokens, and ``turn/u/entropy``: its mean times that share."""
        found = {"entropy/outside": (self.penalty(batch) > 0).to(batch.mask)}
        for u in range(self.max_turns):
            here = (turns(batch) == u).to(batch.mask)[:, None].expand_as(batch.mask)
            found |= {f"turn/{u}/share": here, f"turn/{u}/entropy": here * batch.entropy}
        return found


def turns(batch: Batch) -> Tensor:
    """[N] the environment turn of each row; 0 where the task has no turns."""
    return torch.zeros_like(batch.mask[:, 0], dtype=torch.long) if batch.turn is None else batch.turn.long()


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
    def needs(self) -> frozenset[str]:  # type: ignore[override]
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
