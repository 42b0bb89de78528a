"""The judge's word as a reward."""

from __future__ import annotations

import torch

from policyopt.part import Finite, Shape, part
from policyopt.rows import Batch


@part
class Correctness(Shape):
    r"""The judge's word in numbers, in the place of its score: one for right, one for wrong, and one on top where the
    answer stands in the form that was asked for.

    Sources: DAPO, arXiv:2503.14476, eq. 7 (right 1, wrong -1); accuracy and format as a weighted sum: Prior Prompt
    Engineering, arXiv:2505.14157.
    """

    right: Finite = 1.0
    """Reward of a right answer."""
    wrong: Finite = -1.0
    """Reward of a wrong answer."""
    formatted: Finite = 0.0
    """Added where the judge found the answer in its form."""
    threshold: Finite | None = None
    """A score above it is right; None takes the judge's own word."""

    @property
    def needs(self) -> frozenset[str]:
        """What the judge said, as far as it counts."""
        return frozenset({"correct"} if self.threshold is None else ()) | ({"formatted"} if self.formatted else set())

    def __call__(self, batch: Batch) -> Batch:
        right = batch.correct > 0.5 if self.threshold is None else batch.reward > self.threshold
        reward = torch.where(right, self.right, self.wrong).to(batch.reward)
        return batch.replace(reward=reward + self.formatted * batch.formatted if self.formatted else reward)
