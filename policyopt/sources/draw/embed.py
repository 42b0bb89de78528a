"""What tokens mean: vectors that rollout programs compare tokens and texts by."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from policyopt.part import Part, part
from policyopt.sources.program import Sampler


class Embedder(Part):
    """Vectors [..., E] of token ids [...]; a subclass may take them from anywhere."""

    def __call__(self, ids: Tensor, sampler: Sampler) -> Tensor:
        raise NotImplementedError


@part
class InputEmbeddings(Embedder):
    """The input embeddings of the policy itself."""

    asks: ClassVar[frozenset[str]] = frozenset({"token embeddings"})

    def __call__(self, ids: Tensor, sampler: Sampler) -> Tensor:
        return sampler.embed(ids)
