"""The win rate as a reward."""

from __future__ import annotations

from typing import ClassVar

import torch

from policyopt.groups import preferred
from policyopt.part import NonNegative, Shape, Unit, part
from policyopt.rows import Batch


@part
class WinRate(Shape):
    r"""The mean probability that a response is better than another one to the same prompt, in the place of its score.

    .. math:: R_i = \frac{1}{G-1}\sum_{j\ne i} P_{ij}

    P is what a judge that compares said. A judge that scores makes it: the higher score wins and equal ones tie, or with
    ``scale`` :math:`\tau` a Bradley-Terry model, :math:`P_{ij} = \sigma((R_i - R_j)/\tau)`. The mean over a group is 1/2, whatever P. A
    response alone is worth 1/2. Sources: SPO, arXiv:2401.04056 (group form); Pref-GRPO, arXiv:2508.20751 (``votes``); SPPO,
    arXiv:2405.00675 (``itself``).
    """

    votes: bool = False
    """Count each pair as won, lost or tied, 1, 0 or 1/2, whatever the probability."""
    scale: NonNegative = 0.0
    """tau, in units of the score; 0 for the limit, in which only the order counts."""

    itself: bool = False
    """Count the response among the others, as a tie: the mean is then over all G."""

    unit: ClassVar[Unit] = "group"
    min_group: ClassVar[int] = 2

    def __call__(self, batch: Batch) -> Batch:
        table = preferred(batch, self.scale).fill_diagonal_(0.5 if self.itself else torch.nan)
        if self.votes:
            table = torch.where(table.isnan(), table, (1 + (table - 0.5).sign()) / 2)  # the sign of NaN is 0
        return batch.replace(reward=table.nanmean(1).nan_to_num(0.5))
