"""What is remembered of how often a prompt was answered right."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from policyopt.groups import group_mean
from policyopt.part import Memory, part
from policyopt.rows import Batch


@part
class LastAccuracy(Memory):
    """The share of right responses that a prompt had when it was last there.

    Sources: VerIPO, arXiv:2505.19000, which leaves out what is always right; Kimi k1.5, arXiv:2501.12599, which draws prompts by it.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"correct"})

    def __call__(self, batch: Batch) -> Tensor:
        return group_mean(batch.correct, batch.group)[:, None]
