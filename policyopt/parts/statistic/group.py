"""Statistics of all responses to a prompt together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from policyopt.part import Statistic, Unit
from policyopt.rows import Batch, masked


@dataclass(frozen=True)
class Together:
    """The responses to one prompt, G of them, token by token; T positions, d numbers of a hidden state, V tokens of the vocabulary."""

    tokens: Tensor
    """[G, T] ids."""
    mask: Tensor
    """[G, T] 1 on the tokens that the policy wrote."""
    hidden: Tensor
    """[G, T, d] the hidden state that predicts each token, the input of the output head; 0 where the mask is."""
    columns: Mapping[str, Tensor]
    """[G] each, the columns that the statistic names."""
    logp: Callable[[slice], Tensor]
    """From positions to the log-probabilities of all tokens there, [G, c, V]; 0 where the mask is."""
    size: int
    """Of how many positions they are held at once."""

    def chunks(self) -> Iterator[tuple[slice, Tensor]]:
        """All positions, some at a time, with their log-probabilities [G, c, V]: bounded in memory whatever T is."""
        for start in range(0, self.mask.shape[1], self.size):
            places = slice(start, min(start + self.size, self.mask.shape[1]))
            yield places, self.logp(places)


class GroupStatistic(Statistic):
    """A number per token made from the distributions and hidden states of all responses to its prompt.

    Other parts list it under ``fixed``: the policy takes it once, when the batch is annotated, from all rows that were drawn for
    the prompt, and it carries no gradient. It is over the sampling temperature, and the support of each draw.
    """

    unit: ClassVar[Unit] = "group"

    def over(self, group: Together) -> Tensor:
        """The number of each token, [G, T]; what stands where the mask is 0 is of no account."""
        raise NotImplementedError


def apart(statistics: Iterable[Statistic]) -> tuple[tuple[Statistic, ...], tuple[GroupStatistic, ...]]:
    """Those of single tokens, and those of all responses to a prompt."""
    every = tuple(statistics)
    return (
        tuple(s for s in every if not isinstance(s, GroupStatistic)),
        tuple(s for s in every if isinstance(s, GroupStatistic)),
    )


def over_groups(
    statistics: Sequence[GroupStatistic], batch: Batch, together: Callable[[Tensor, Batch], Together]
) -> dict[str, Tensor]:
    """Statistics of every row, [N, T] by key; ``together`` makes what they are made from, given the rows of a prompt by number and
    the batch of them."""
    found = {s.key: torch.zeros_like(batch.mask) for s in statistics}
    for group in batch.group.unique() if found else ():
        rows = (batch.group == group).nonzero()[:, 0]
        some = batch[rows]
        all_of_them = together(rows, some)
        for s in statistics:
            found[s.key][rows] = masked(s.over(all_of_them).to(batch.mask), some.mask)
    return found


def from_logits(statistic: GroupStatistic, batch: Batch, logits: Tensor, hidden: Tensor | None = None) -> Tensor:
    """The statistic [N, T] where the logits [N, T, V] of all tokens are there; ``hidden`` [N, T, d] are the logits themselves where
    they are not given, as they are before a head that changes nothing."""
    states = logits if hidden is None else hidden

    def together(rows: Tensor, some: Batch) -> Together:
        there = some.mask[..., None]
        logp = masked(logits[rows].log_softmax(-1), there)
        columns = {name: getattr(some, name) for name in statistic.columns}
        tokens = torch.zeros_like(some.mask, dtype=torch.long) if some.tokens is None else some.tokens
        return Together(tokens, some.mask, masked(states[rows], there), columns, lambda at: logp[:, at], 2)

    return over_groups((statistic,), batch, together)[statistic.key]
