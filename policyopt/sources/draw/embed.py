"""What tokens mean: vectors that rollout programs compare tokens and texts by."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from policyopt.errors import UserError
from policyopt.part import Part, part
from policyopt.sources.program import Sampler


class Embedder(Part):
    """Vectors [..., E] of token ids [...]; a subclass may take them from anywhere."""

    def __call__(self, ids: Tensor, sampler: Sampler) -> Tensor:
        raise NotImplementedError


@part
class InputEmbeddings(Embedder):
    """The input embeddings of the policy itself.

    Raises :class:`~policyopt.errors.UserError` for a sampler whose model runs somewhere else.
    """

    def __call__(self, ids: Tensor, sampler: Sampler) -> Tensor:
        table = _table(sampler)
        return table[ids.to(table.device)].detach().cpu()


def vocabulary_size(sampler: Sampler) -> int:
    """How many tokens the policy chooses from."""
    return len(_table(sampler))


def _table(sampler: Sampler) -> Tensor:
    model: Any = getattr(getattr(sampler, "split", None), "hidden", None)
    if not hasattr(model, "get_input_embeddings"):
        raise UserError(f"{type(sampler).__name__} does not show its model's embeddings; name another embedder")
    table: Tensor = model.get_input_embeddings().weight
    return table
