"""INPO: how its pairs are chosen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Bout(NamedTuple):
    """What came of a tournament."""

    winner: int
    loser: int
    comparisons: int
    """How often the judge was asked."""
    keep: bool
    """Whether the winner also beats the loser when they meet; a pair that fails this is left out."""


def tournament(preferred: Sequence[Sequence[float]]) -> Bout:
    r"""The best and the worst of K responses by knock-out, from ``preferred`` [K, K], the probability that i is better than j.

    Responses meet two by two in their order. Winners of a round meet winners until one is left, and losers of the first round meet
    losers, of whom the one that loses goes on. Winner and loser meet last: :math:`K/2 + 2(K/2 - 1) + 1` comparisons, 11 of 8 responses,
    where all pairs are 28. On a tie the first one wins. Source: INPO, arXiv:2407.00617, section 4, K = 8. Our reading: in the
    bracket of losers the loser of each duel goes on, as its aim asks for; where a bracket has an odd number, the last one
    goes on without a duel.

    Raises ``ValueError`` for fewer than two responses, or a table that is not square.
    """
    k = len(preferred)
    if k < 2 or any(len(row) != k for row in preferred):
        raise ValueError(f"a tournament takes a square table of at least 2 responses, got {k} rows")
    asked = 0

    def duel(i: int, j: int) -> tuple[int, int]:
        nonlocal asked
        asked += 1
        return (i, j) if preferred[i][j] >= 0.5 else (j, i)

    def bracket(left: list[int], side: int) -> int:
        while len(left) > 1:
            through = [duel(i, j)[side] for i, j in zip(left[::2], left[1::2], strict=False)]
            left = [*through, *left[2 * len(through) :]]
        return left[0]

    first = [duel(i, i + 1) for i in range(0, k - 1, 2)]
    odd = [k - 1] if k % 2 else []
    winner, loser = (bracket([*(pair[side] for pair in first), *odd], side) for side in (0, 1))
    return (
        Bout(winner, loser, asked + 1, preferred[winner][loser] >= 0.5)
        if winner != loser
        else Bout(winner, loser, asked, False)
    )
