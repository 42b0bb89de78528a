"""The loss as a mean over some of the tokens, in which what rows of a tree share counts once."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from policyopt.batch import Batch, masked
from policyopt.parts.base import Positive, Unit, Weight, part
from policyopt.parts.select import Selector
from policyopt.parts.tree import FLAT, edge_of, lineage, sharing


@part
class Unlikely(Selector):
    """The tokens that were drawn with a probability below a threshold. Source: SPO, arXiv:2505.23564."""

    threshold: Positive = 0.9
    """The probability under the policy that wrote the token; above 1 all tokens are picked."""

    def __call__(self, batch: Batch) -> Tensor:
        return batch.mask.bool() & (batch.old_logp.exp() < self.threshold)


@part
class MeanOver(Weight):
    r"""Makes a token-mean one over a part of the tokens.

    .. math:: w_{i,t} = \frac{M_{i,t}}{d_{i,t}}\,\frac{\sum_{jk} 1}{\sum_{jk} M_{jk}/d_{jk}}

    M picks the tokens; d is the number of rows that share the token's node where it is to count ``once``, else 1.
    Source: SPO, arXiv:2505.23564, and the authors' code (AIFrameResearch/SPO).
    """

    tokens: Selector = Unlikely()
    """The tokens that are trained on."""
    once: bool = False
    """An edge counts once, however many leaves lie behind it; one without advantage does not count at all."""

    unit: ClassVar[Unit] = "batch"

    def count(self, batch: Batch) -> Tensor:
        """M / d, [N, T]."""
        kept = self.tokens(batch).to(batch.mask)
        if not self.once:
            return kept
        rows = torch.stack([sharing(level) for level in lineage(batch)[:, 1:].unbind(1)], 1).to(kept)
        return torch.where(batch.advantage.abs() > FLAT, kept / rows.gather(1, edge_of(batch)), 0.0)

    def __call__(self, log_ratio: Tensor, batch: Batch) -> Tensor:
        count = masked(self.count(batch), batch.mask)
        return count * batch.mask.sum() / torch.where(count.sum() > 0, count.sum(), 1.0)
