"""Rows of an auxiliary program: what they are credited with, and which rows they stand in for."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from policyopt.batch import Batch
from policyopt.parts.advantage import Normalise, by_source
from policyopt.parts.base import Filter, Finite, Fraction, Positive, Unit, Whole, part


@part
class RewardedAuxiliary(Normalise):
    r"""The usual advantage on rows of the main program; on auxiliary rows a constant if theirs is large enough, else 0.

    The auxiliary responses to a prompt are a group of their own. With a constant the surrogate is a likelihood term on
    rewarded answers. Source: AEPO, arXiv:2510.08141, and the authors' code (597358816/AEPO), where it is 1.
    """

    constant: Positive = 1.0
    """Advantage of a rewarded auxiliary row."""
    threshold: Finite = 0.05
    """Advantage in their own group that auxiliary rows must exceed."""

    def __call__(self, batch: Batch) -> Tensor:
        if batch.source is None:
            return super().__call__(batch)
        advantage = super().__call__(batch.replace(group=by_source(batch)))
        rewarded = self.constant * (advantage > self.threshold).to(advantage)
        return torch.where((batch.source > 0)[:, None], rewarded, advantage) * batch.mask


@part
class ReplaceByAuxiliary(Filter):
    r"""Take rewarded auxiliary rows in the place of as many rows of the main program.

    n = floor(share * min(limit, available)) auxiliary rows with positive advantage replace n rows of the main program;
    all other auxiliary rows go. Source: AEPO, arXiv:2510.08141, the authors' code (597358816/AEPO); the paper's
    coefficient on the auxiliary term is n over the number of rows. Our reading: which n is left to the random numbers
    that came with the rows, where the code takes the first ones; so it does here where a batch has no such numbers.
    """

    limit: Whole = 60
    """Most rows to replace."""
    share: Fraction = 1.0
    """Part of what is available that is used; a controller may move it."""

    needs: ClassVar[frozenset[str]] = frozenset({"noise"})
    unit: ClassVar[Unit] = "batch"

    def used(self, available: int) -> int:
        """n."""
        return int(self.share * min(self.limit, available))

    def __call__(self, batch: Batch) -> Tensor:
        if batch.source is None:
            return torch.ones_like(batch.mask[:, 0], dtype=torch.bool)
        main = batch.source == 0
        rewarded = ~main & ((batch.advantage > 0) & batch.mask.bool()).any(-1)
        n = min(self.used(int(rewarded.sum())), int(main.sum()))
        turn = torch.arange(len(main), device=main.device) if batch.noise is None else batch.noise[:, 0]
        return (main & ~first(main, turn, n)) | first(rewarded, turn, n)


def first(rows: Tensor, turn: Tensor, n: int) -> Tensor:
    """Of some rows, boolean [N], the ``n`` whose turn [N] comes first."""
    order = torch.where(rows, turn.double(), torch.inf).argsort(stable=True)
    return rows & torch.zeros_like(rows).index_fill(0, order[:n], True)
