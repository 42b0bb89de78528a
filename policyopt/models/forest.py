"""What rows of tokens have in common at their beginnings: a forest in which every shared token stands once."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]

WORTH = 32
"""A beginning stands once where that saves at least one token in so many of those that come after it: each of those
pays a little to look back at it."""


@dataclass(frozen=True)
class Forest:
    """N rows as segments of tokens in depth-first order, T tokens in all. What comes after a segment follows it at once, so the
    tokens that look back at a segment are one slice."""

    place: Numbers
    """[N, L] where token j of row i stands among the T; 0 behind the end of a row."""
    source: Numbers
    """[T] a token of the rows, as number i L + j, that stands there."""
    position: Numbers
    """[T] how many tokens come before it in its row."""
    start: Numbers
    """[S] the first token of each segment."""
    length: Numbers
    """[S]"""
    end: Numbers
    """[S] behind the last token that comes after the segment."""

    def __len__(self) -> int:
        """T."""
        return len(self.source)


def alike(ids: NDArray[np.generic], length: Numbers) -> tuple[Numbers, Numbers]:
    """Rows ids [N, L, ...], of which the first ``length`` [N] tokens count, put in an order in which those that begin alike stand
    together: their numbers [N], and how many first tokens each has in common with the next, [N - 1]. Tokens are the same
    where all their numbers are; a row that another begins with comes before it."""
    rows, width = ids.shape[:2]
    there = np.arange(width) < length[:, None]
    symbols = ids.reshape(rows, width, int(np.prod(ids.shape[2:])))
    # The end of a row comes before any token; high bytes first, so that bytes compare as numbers do.
    symbols = np.where(there[:, :, None], symbols.astype(np.int64) + 1, 0).astype(">u8")
    key = [row.tobytes() for row in symbols]
    order = np.array(sorted(range(rows), key=key.__getitem__), dtype=np.int64)
    unlike = (symbols[order[1:]] != symbols[order[:-1]]).any(-1)
    first = np.where(unlike.any(-1), unlike.argmax(-1), width)
    return order, np.minimum(first, np.minimum(length[order[1:]], length[order[:-1]]))


def grow(ids: NDArray[np.generic], length: Numbers) -> Forest:
    """The forest of rows ids [N, L, ...] of which the first ``length`` [N] tokens count; rows may be empty."""
    rows, width = ids.shape[:2]
    order, shared = alike(ids, length)
    found = _Growing(length[order], shared, np.zeros((rows, width), dtype=np.int64))
    if rows:
        found.branch(0, 0, rows, 0)
    place = np.empty_like(found.place)
    place[order] = found.place
    source = np.zeros(found.tokens, dtype=np.int64)
    there = np.arange(width) < length[:, None]
    source[place[there]] = there.reshape(-1).nonzero()[0]
    segments = np.array(found.segments, dtype=np.int64).reshape(-1, 3).T
    return Forest(place, source, source % max(1, width), *segments)


@dataclass
class _Growing:
    length: Numbers
    """[N] of the sorted rows."""
    shared: Numbers
    place: Numbers
    segments: list[tuple[int, int, int]] = field(default_factory=list)
    tokens: int = 0

    def branch(self, told: int, low: int, high: int, start: int) -> None:
        """Lay down what rows ``low`` to ``high`` hold from token ``start`` on; rows from ``told`` on end on the way, as
        beginnings of the first of them."""
        first = low
        while True:
            common = int(self.shared[first : high - 1].min()) if high - first > 1 else int(self.length[first])
            while first < high and self.length[first] == common:  # what ends here comes first
                first += 1
            if first == high:
                self._segment(told, high, start, common)
                return
            cuts = [first, *(first + 1 + np.flatnonzero(self.shared[first : high - 1] == common)).tolist(), high]
            if len(cuts) > 2:
                break
        children = list(itertools.pairwise(cuts))
        saved = (common - start) * (len(children) - 1)
        after = int((self.length[first:high] - common).sum())
        if saved * WORTH < after or common == start:
            for lower, upper in children:
                self.branch(told if lower == first else lower, lower, upper, start)
            return
        number = self._segment(told, high, start, common)
        for lower, upper in children:
            self.branch(lower, lower, upper, common)
        begun, size, _ = self.segments[number]
        self.segments[number] = (begun, size, self.tokens)

    def _segment(self, low: int, high: int, start: int, end: int) -> int:
        """Put tokens ``start`` to ``end`` behind what is there already, for rows that hold some of them."""
        size = end - start
        if size:
            held = np.arange(start, end) < self.length[low:high, None]
            at = np.broadcast_to(np.arange(self.tokens, self.tokens + size), held.shape)
            self.place[low:high, start:end][held] = at[held]
            self.segments.append((self.tokens, size, self.tokens + size))
            self.tokens += size
        return len(self.segments) - 1
