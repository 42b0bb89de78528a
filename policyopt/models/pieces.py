"""Which rows of a batch are passed through a model together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from policyopt.models.forest import Numbers, alike

MICRO_TOKENS = 16_384
"""Of a forward pass, where nothing else is asked for."""


def padded_pieces(lengths: Sequence[int], rows: int | None = None) -> Iterator[list[int]]:
    """Numbers of the texts of each forward pass, given how many tokens they have: those of like length together, so that little
    padding is computed; ``rows`` at a time, or as many as fit in :data:`MICRO_TOKENS`."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    start = 0
    while start < len(order):
        end = start + (rows or max(1, MICRO_TOKENS // max(1, lengths[order[start]])))
        yield order[start:end]
        start = end


def packed_pieces(ids: np.ndarray, length: Numbers, rows: int | None = None) -> Iterator[list[int]]:
    """Numbers of the texts of each forward pass, for a model that packs them: those that begin alike together, so that little
    is passed twice; ``rows`` at a time, or as many as have :data:`MICRO_TOKENS` tokens, those that they share counted once.
    Texts are ids [N, L, ...] of which the first ``length`` [N] tokens count."""
    order, shared = alike(ids, length)
    new = length[order].copy()
    new[1:] -= shared
    piece, tokens = list[int](), 0
    for i, whole, more in zip(order.tolist(), length[order].tolist(), new.tolist(), strict=True):
        if piece and (len(piece) >= rows if rows else tokens + more > MICRO_TOKENS):
            yield piece
            piece, tokens = [], 0
        tokens += more if piece else whole
        piece.append(i)
    if piece:
        yield piece
