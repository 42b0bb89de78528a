"""Weights on selected tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from policyopt.part import NonNegative, Unit, Weight, Wrapper, part
from policyopt.parts.select.tokens import AboveQuantile, Selector
from policyopt.rows import Batch, masked


@part
class SelectedWeight(Wrapper, Weight):
    """One factor on the tokens that a selector picks, another on the rest. The divisor of the loss counts all tokens."""

    tokens: Selector = AboveQuantile()
    """Which tokens."""
    inside: NonNegative = 1.0
    """Factor on those that are picked."""
    outside: NonNegative = 0.0
    """Factor on the others."""

    around: ClassVar[str] = "tokens"

    def __call__(self, log_ratio: Tensor, batch: Batch) -> Tensor:
        return torch.where(self.tokens(batch), self.inside, self.outside).to(log_ratio)

    def metrics(self, log_ratio: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        return {"selected": self.tokens(batch).to(log_ratio)}


@part
class MeanOver(Wrapper, Weight):
    r"""Makes a token-mean one over a part of the tokens.

    .. math:: w_{i,t} = M_{i,t}\,\frac{\sum_{jk} 1}{\sum_{jk} M_{jk}}

    M picks the tokens. It is a weight and no aggregation, because a KL beside it stays a mean over all tokens: an aggregation would
    be its too. Sources: SPO, arXiv:2505.23564, and the authors' code (AIFrameResearch/SPO); D3S, arXiv:2509.22115.
    """

    tokens: Selector = AboveQuantile()
    """The tokens that are trained on."""

    around: ClassVar[str] = "tokens"
    unit: ClassVar[Unit] = "batch"

    def count(self, batch: Batch) -> Tensor:
        """M, [N, T]."""
        return self.tokens(batch).to(batch.mask)

    def __call__(self, log_ratio: Tensor, batch: Batch) -> Tensor:
        count = masked(self.count(batch), batch.mask)
        return count * batch.mask.sum() / torch.where(count.sum() > 0, count.sum(), 1.0)
