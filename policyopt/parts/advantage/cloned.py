"""The advantage of imitation."""

from __future__ import annotations

from torch import Tensor

from policyopt.part import Advantage, part
from policyopt.rows import Batch


@part
class Cloned(Advantage):
    """1 on every token: what is in the batch is imitated, all of it alike.

    Sources: MBRCSL, arXiv:2310.19308 (what a filter has left); RA3, arXiv:2509.25810 (expert text with latents written into it).
    """

    def __call__(self, batch: Batch) -> Tensor:
        return batch.mask.clone()
