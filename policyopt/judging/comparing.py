r"""Responses to one prompt, compared with each other: who is asked what, and what becomes of the answers.

A judge that compares says with which probability p_ij the response that is shown first, i, is better than j. Every pair is
asked in both orders, so that a liking for the first or the second place cancels:

.. math:: P_{ij} = \tfrac12 (p_{ij} + 1 - p_{ji}),\qquad P_{ij} + P_{ji} = 1,\qquad P_{ii} = \tfrac12

A response is worth its mean over the others, :math:`w_i = \frac{1}{G-1}\sum_{j\ne i} P_{ij}`, its win rate. Sources: both orders,
OAIF, arXiv:2402.04792; win rate without itself, SPO, arXiv:2401.04056. Our reading: equal texts tie and are not asked about; a
response alone is worth 1/2.

Where a pair has no answer (the judge raised, took too long, returned nonsense, or ``None``), responses leave until none is
missing: first those without any answer, then the one that lacks most, of equals the last.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from policyopt.items import Verdict, preferred

Kind = Literal["pair", "group"]
"""What a judge that compares is shown at once: two responses, or all of a prompt."""
COLUMNS = ("wins", "beats")
"""What such a judge fills: the win rate, and P against each response of the group."""


@dataclass(frozen=True)
class Comparison:
    """What came of the responses to one prompt."""

    verdicts: list[Verdict]
    """On each response: its win rate as the part ``wins``, and as the score where the judge says nothing else; row i of P as the
    part ``beats``, over the responses that stay in their order, NaN at its own place."""
    asked: int = 0
    """Pairs that were answered in both orders."""
    ties: int = 0
    """How many of these have P = 1/2."""
    gap: float = 0.0
    """Sum over them of \\|p_ij + p_ji - 1\\|: 0 for a judge that does not mind the order, 1 each where only the order counts."""


def questions(kind: Kind | None, texts: Sequence[str]) -> Sequence[str | tuple[str, ...]]:
    """What a judge is asked about the responses to one prompt: each by itself, or two of them in both orders, or all at once."""
    if kind is None:
        return list(texts)
    distinct = tuple(dict.fromkeys(texts))
    if kind == "pair":
        return list(itertools.permutations(distinct, 2))
    return [distinct] if distinct else []


def scored(verdicts: Sequence[Verdict]) -> Comparison:
    """The comparison that scores make: the higher one wins, equal ones tie."""
    kept = [v for v in verdicts if v.rewarded]
    table, place, found = preferred(kept), itertools.count(), []
    for verdict in verdicts:
        if not verdict.rewarded:
            found.append(verdict)
            continue
        own = next(place)
        row = _row(table[own], own)
        found.append(replace(verdict, score=_mean(row), parts={**verdict.parts, "wins": _mean(row), "beats": row}))
    pairs = list(itertools.combinations(range(len(kept)), 2))
    return Comparison(found, len(pairs), sum(table[i][j] == 0.5 for i, j in pairs))


def compared(kind: Kind, texts: Sequence[str], verdicts: Sequence[Verdict]) -> Comparison:
    """The comparison that the answers to :func:`questions` make."""
    distinct = list(dict.fromkeys(texts))
    shown = [distinct.index(text) for text in texts]
    told = _pairs(distinct, verdicts) if kind == "pair" else _whole(len(distinct), verdicts)
    table, pairs, gap = _both_orders(told.p)
    staying = _staying(table)
    members = [i for i in shown if i in staying]
    found, place = [], itertools.count()
    for i in shown:
        if i not in staying:
            found.append(Verdict.failure(told.reason) if told.failed else Verdict.absent(told.reason))
            continue
        own = next(place)
        row = _row([0.5 if j == i else table[i][j] for j in members], own)
        wins = _mean(row)
        reason = f"wins {wins:.2f} against {len(members) - 1} others"
        score = told.reward[i] if told.reward else wins
        found.append(Verdict(score, told.correct[i], told.formatted[i], reason, parts={"wins": wins, "beats": row}))
    costs: dict[str, float] = {}
    for name, x in (item for v in verdicts for item in v.costs.items()):
        costs[name] = costs.get(name, 0.0) + x
    if costs:  # counted once
        found[0] = replace(found[0], costs=costs)
    return Comparison(found, len(pairs), sum(table[i][j] == 0.5 for i, j in pairs), gap)


@dataclass(frozen=True)
class _Told:
    """What a judge said of different texts."""

    p: list[list[float]]
    """That the one shown first is better; NaN where there is no answer."""
    reward: Sequence[float]
    """What each is worth, where that is not its win rate; else empty."""
    correct: list[bool]
    formatted: list[bool]
    reason: str
    """Why an answer is missing."""
    failed: bool
    """Whether the judge is to blame for one that is."""


def _missing(verdicts: Sequence[Verdict]) -> tuple[str, bool]:
    lost = [v for v in verdicts if not v.rewarded]
    worst = next((v for v in lost if v.failed), lost[0] if lost else None)
    return (worst.reason, worst.failed) if worst else ("the judge does not compare this response", False)


def _pairs(texts: Sequence[str], verdicts: Sequence[Verdict]) -> _Told:
    n = len(texts)
    p, correct, formatted = [[0.5] * n for _ in texts], [False] * n, [False] * n
    for (i, j), verdict in zip(itertools.permutations(range(n), 2), verdicts, strict=True):
        p[i][j] = verdict.score  # NaN without an answer
        correct[i] |= verdict.correct
        formatted[i] |= verdict.formatted
    return _Told(p, (), correct, formatted, *_missing(verdicts))


def _whole(n: int, verdicts: Sequence[Verdict]) -> _Told:
    said: Mapping[str, Sequence[float]] = verdicts[0].parts if verdicts else {}  # type: ignore[assignment]
    flat = said.get("score", [math.nan] * n * n)
    correct, formatted = ([x > 0 for x in said.get(name, [0.0] * n)] for name in ("correct", "formatted"))
    table = [list(flat[i * n : i * n + n]) for i in range(n)]
    return _Told(table, said.get("reward", ()), correct, formatted, *_missing(verdicts))


def _both_orders(p: Sequence[Sequence[float]]) -> tuple[list[list[float]], list[tuple[int, int]], float]:
    """P, the pairs that were answered in both orders, and by how much these differ."""
    n = len(p)
    table = [[(p[i][j] + 1 - p[j][i]) / 2 for j in range(n)] for i in range(n)]
    for i, j in itertools.combinations(range(n), 2):
        table[j][i] = 1 - table[i][j]  # to the bit
    pairs = [(i, j) for i, j in itertools.combinations(range(n), 2) if not math.isnan(table[i][j])]
    return table, pairs, sum(abs(p[i][j] + p[j][i] - 1) for i, j in pairs)


def _staying(table: Sequence[Sequence[float]]) -> set[int]:
    """Which texts are left when those have gone that lack an answer."""

    def lacks(i: int, others: set[int]) -> int:
        return sum(math.isnan(table[i][j]) for j in others if j != i)

    every = set(range(len(table)))
    left = {i for i in every if lacks(i, every) < max(1, len(every) - 1)}
    if len(every) == 1 and math.isnan(table[0][0]):
        return set()
    while worst := [(lacks(i, left), i) for i in left if lacks(i, left)]:
        left.remove(max(worst)[1])
    return left


def _row(row: Sequence[float], own: int) -> list[float]:
    return [math.nan if j == own else x for j, x in enumerate(row)]


def _mean(row: Sequence[float]) -> float:
    """The win rate that a row of P makes."""
    others = [x for x in row if not math.isnan(x)]
    return sum(others) / len(others) if others else 0.5
