"""The reward of truncated responses."""

from __future__ import annotations

from typing import ClassVar

import torch

from policyopt.part import Finite, Shape, part
from policyopt.rows import Batch


@part
class TruncatedReward(Shape):
    """A fixed reward for responses cut off at the budget, in the place of the judge's score (TRL:
    ``missing_eos_penalty``)."""

    reward: Finite = 0.0
    """What a truncated response is worth."""
    add: bool = False
    """Add it to the score instead."""

    needs: ClassVar[frozenset[str]] = frozenset({"truncated"})

    def __call__(self, batch: Batch) -> Batch:
        cut = batch.reward + self.reward if self.add else torch.full_like(batch.reward, self.reward)
        return batch.replace(reward=torch.where(batch.truncated > 0.5, cut, batch.reward))
