"""What all responses to a prompt make together, without ever holding the distributions of all positions at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from policyopt.models.causal import heated, supports
from policyopt.models.head import at_once
from policyopt.models.likelihood import Stepwise
from policyopt.parts.statistic.group import GroupStatistic, Together, over_groups
from policyopt.rows import Batch

Pieces = Callable[[Batch], Iterable[Tensor]]
"""From a batch to the numbers of the rows that are passed together."""


@torch.no_grad()
def group_statistics(
    model: Stepwise, batch: Batch, statistics: Sequence[GroupStatistic], pieces: Pieces
) -> dict[str, Tensor]:
    """[N, T] each, by key.

    The rows of a prompt pass the backbone in ``pieces``, once for all statistics; their hidden states are held. The head is applied
    to as many positions at a time as have their logits, for all rows of the prompt, in one chunk.
    """
    columns = tuple({name for s in statistics for name in s.columns})

    def together(_: Tensor, some: Batch) -> Together:
        mask = some.mask.bool()
        states = _states(model, some, pieces)
        hidden = states.new_zeros(*mask.shape, states.shape[-1])
        hidden[mask] = states
        seen = {name: getattr(some, name) for name in columns}
        size = max(1, at_once(model.vocab) // len(some))
        return Together(some.tokens, some.mask, hidden.to(some.mask), seen, _Distributions(model, some, hidden), size)

    return over_groups(statistics, batch, together)


def _states(model: Stepwise, batch: Batch, pieces: Pieces) -> Tensor:
    """The hidden states [M, H] that predict the tokens of a batch, in the order of ``mask.nonzero()``."""
    found: list[Tensor] = [torch.empty(0)] * len(batch)
    for rows in pieces(batch):
        piece = batch[rows]
        split = model.predicting(piece).split(piece.mask.sum(1).long().tolist())
        for i, states in zip(rows.tolist(), split, strict=True):
            found[i] = states
    return torch.cat(found)


class _Distributions:
    """From positions to log-probabilities: at the temperature of each token, over what it was drawn from."""

    def __init__(self, model: Stepwise, batch: Batch, hidden: Tensor) -> None:
        self.model, self.batch, self.hidden, self.mask = model, batch, hidden, batch.mask.bool()
        heat = torch.ones_like(batch.mask) if batch.temperature is None else batch.temperature
        self.heat = heat if heat.dim() == 2 else heat[:, None].expand_as(batch.mask)

    def __call__(self, places: slice) -> Tensor:
        """[G, c, V], 0 where the mask is."""
        there = torch.zeros_like(self.mask)
        there[:, places] = self.mask[:, places]
        some = self.batch.replace(mask=there.to(self.batch.mask))
        support = None if some.support is None else supports(some)
        logits = heated(self.model.logits, self.hidden[there], self.heat[there], support)
        out = logits.new_zeros(*self.mask[:, places].shape, logits.shape[-1])
        out[self.mask[:, places]] = logits.log_softmax(-1)
        return out
