"""What of the batches a step trains on: earlier ones beside the new one, and pieces of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from policyopt.rows import Batch, join


def with_replay(new: Batch, earlier: Sequence[Batch | None]) -> Batch:
    """A batch with earlier ones after it, newest first, their groups renumbered so that no two share one; each row knows
    its ``age``."""
    if not earlier:
        return new
    pieces = [b.replace(age=torch.full_like(b.group, i)) for i, b in enumerate([new, *earlier]) if b is not None]
    first = 0
    for i, piece in enumerate(pieces):
        pieces[i] = piece.replace(group=piece.group + first) if i else piece
        first = int(pieces[i].group.max()) + 1
    return join(pieces)


def minibatches(batch: Batch, count: int, key: tuple[int, int, int]) -> Iterator[torch.Tensor]:
    """Row numbers of ``count`` pieces of a batch, whole groups each, in an order that follows from the key."""
    if count == 1:
        yield torch.arange(batch.mask.shape[0], device=batch.mask.device)
        return
    groups = np.unique(batch.group.cpu().numpy())
    order = np.random.default_rng(tuple(k & 0xFFFFFFFF for k in key)).permutation(groups)
    for piece in np.array_split(order, min(count, len(order))):
        yield torch.isin(batch.group, torch.from_numpy(piece).to(batch.group.device)).nonzero()[:, 0]
