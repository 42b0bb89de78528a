"""Which responses of a batch give the same answer."""

from __future__ import annotations

import torch
from torch import Tensor

from policyopt.judging.answers import find_answer
from policyopt.rows import Batch


def answer_groups(batch: Batch) -> Tensor:
    """[N] a number for each different answer to each prompt: what stands in a text as its answer, or else all of it; of rows without texts,
    their tokens."""
    groups = batch.group.tolist()
    if batch.records is None:
        texts: list[object] = [
            tuple(row[kept].tolist()) for row, kept in zip(batch.tokens, batch.mask.bool(), strict=True)
        ]
    else:
        written = [str(record.get("response", "")) for record in batch.records]
        texts = [find_answer(text) or text.strip() for text in written]
    numbers: dict[tuple[int, object], int] = {}
    kinds = [numbers.setdefault(key, len(numbers)) for key in zip(groups, texts, strict=True)]
    return torch.tensor(kinds, device=batch.mask.device)
