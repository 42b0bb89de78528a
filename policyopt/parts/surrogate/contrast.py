"""Contrasts between the responses to one prompt."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor

from policyopt.part import NonNegative, Part, Statistic, Surrogate, Unit, part
from policyopt.parts.pairing.pairs import AllPairs, PairSelector, PairWeight
from policyopt.parts.score.rows import RowScore, Score
from policyopt.rows import Batch


class Contrast(Surrogate):
    """A loss of whole responses: each row's part of it, on all of its tokens.

    Meant for an aggregation whose shares add up to 1/N in each row (``seq-mean-token-mean``).
    """

    score: Score

    def inner(self) -> Iterator[Part]:
        """The parts that it is made of."""
        yield self.score

    @property
    def needs(self) -> frozenset[str]:
        """What the parts read that it is made of."""
        return frozenset().union(*(p.needs for p in self.inner()))

    @property
    def live(self) -> tuple[Statistic, ...]:
        return tuple(s for p in self.inner() for s in p.live)

    @property
    def fixed(self) -> tuple[Statistic, ...]:
        return tuple(s for p in self.inner() for s in p.fixed)

    def __call__(self, log_ratio: Tensor, batch: Batch) -> Tensor:
        return self.rows(batch)[:, None].expand_as(batch.mask)

    def rows(self, batch: Batch) -> Tensor:
        """N times each row's part of the loss, [N]."""
        raise NotImplementedError


class Link(Part):
    """The loss of a pair of responses [P], from the scores of all rows [N] and the row numbers of the better and the
    worse response of each pair, [P]."""

    def __call__(self, score: Tensor, batch: Batch, better: Tensor, worse: Tensor) -> Tensor:
        raise NotImplementedError


@part
class Pairs(Contrast):
    r"""The mean over pairs of responses to the same prompt of a loss of their scores.

    .. math:: L = \frac{c}{|P|}\sum_{(w,l)\in P} u_{wl}\,\ell(s_w, s_l)

    P are the pairs that ``choose`` finds, the better response w first; u is 1 without a ``weight``. Both rows carry half of a
    pair's loss. Without a pair the loss is 0.
    """

    link: Link
    r""":math:`\ell`, the loss of a pair."""
    score: Score = RowScore(against="reference")
    """s, the number that stands for a response."""
    choose: PairSelector = AllPairs()
    """P, which responses are pairs."""
    weight: PairWeight | None = None
    """u, how much a pair counts; no gradient passes it."""
    coef: NonNegative = 1.0
    """c, how much all of it counts beside other losses."""

    unit: ClassVar[Unit] = "batch"
    min_group: ClassVar[int] = 2

    def inner(self) -> Iterator[Part]:
        yield from (self.score, self.link, self.choose)
        if self.weight is not None:
            yield self.weight

    def losses(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """The weighted loss of each pair, and the row numbers of its better and of its worse response, [P] each."""
        better, worse = self.choose(batch)
        loss = self.coef * self.link(self.score(batch), batch, better, worse)
        if self.weight is not None:
            loss = self.weight(batch, better, worse).detach() * loss
        return loss, better, worse

    def rows(self, batch: Batch) -> Tensor:
        loss, better, worse = self.losses(batch)
        shared = torch.zeros_like(batch.mask[:, 0]).index_add(0, better, loss / 2).index_add(0, worse, loss / 2)
        return shared * (len(batch.mask) / max(1, len(better)))
