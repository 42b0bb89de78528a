"""Responses that share their beginnings: a tree, drawn round by round."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

from pydantic import Field

from policyopt.part import Count, Part, part
from policyopt.sources.program import Context, Question, Response, Rollout, Sampler

Point = tuple[int, int]
"""The end of a node: the row that wrote it, and how many of the row's tokens lie before it."""


@dataclass(frozen=True)
class Fork:
    """``n`` continuations of the first ``kept`` tokens of a row; at the end of an open row the first one goes on with
    the row itself."""

    row: int
    kept: int
    n: int = 1
    length: int | None = None
    """Most tokens of each continuation; None for as many as the budget leaves."""


class Growth:
    """A tree while it is drawn: rows are paths from the root, and remember from which row they branched off."""

    def __init__(self, budget: int, temperature: float, seed: object) -> None:
        self.budget, self.rounds, self.random = budget, 0, random.Random(repr(seed))
        self.rows = [Response([], [], [], temperature=temperature)]
        self.marks: list[list[float]] = [[]]
        """What the branching rule thinks of each token of each row."""
        self.origin: list[Point] = [(-1, 0)]
        """From which row each row branched off, and after how many tokens."""
        self.cuts: set[Point] = set()
        """Where nodes end inside rows."""

    def open(self) -> list[int]:
        """The rows that can go on."""
        return [i for i, r in enumerate(self.rows) if not (r.finished or r.stopped) and len(r.tokens) < self.budget]

    def way(self, row: int) -> list[Point]:
        """The nodes that a row passes, its leaf last."""
        return way(row, len(self.rows[row].tokens), self.origin, self.cuts)

    def add(self, fork: Fork, drawn: Sequence[Response], marks: Sequence[list[float]]) -> None:
        """Take in what a fork has brought."""
        stem, known = self.rows[fork.row], self.marks[fork.row][: fork.kept]
        in_place = fork.row in self.open() and len(stem.tokens) == fork.kept
        if fork.kept:
            self.cuts.add(writer(fork.row, fork.kept, self.origin))
        grown = [extended(stem, fork.kept, piece) for piece in drawn]
        if in_place:
            self.rows[fork.row], self.marks[fork.row] = grown[0], known + marks[0]
        new = slice(1 if in_place else 0, None)
        self.rows += grown[new]
        self.marks += [known + m for m in marks[new]]
        self.origin += [(fork.row, fork.kept)] * len(grown[new])

    def leaves(self) -> list[Response]:
        """The rows with their nodes numbered."""
        ways = [self.way(i) for i in range(len(self.rows))]
        for response, nodes in zip(self.rows, numbered(ways), strict=True):
            response.nodes = nodes
        for response, passed in zip(self.rows, ways, strict=True):
            response.ends = [end for _, end in passed]
        return self.rows


def writer(row: int, kept: int, origin: Sequence[Point]) -> Point:
    """The node end after the first ``kept`` tokens of a row, under the name of the row that wrote the last of them."""
    while kept <= origin[row][1]:
        row = origin[row][0]
    return row, kept


def way(row: int, length: int, origin: Sequence[Point], cuts: set[Point]) -> list[Point]:
    """The nodes that a row of ``length`` tokens passes, given from which row, and where, each row branched off."""
    passed, limit = [(row, length)], length - 1
    while row >= 0:
        passed += [(i, k) for i, k in cuts if i == row and k <= limit]
        row, kept = origin[row]
        limit = min(limit, kept)
    return sorted(passed, key=lambda point: point[1])


def numbered(ways: Sequence[Sequence[Hashable]]) -> list[list[int]]:
    """The nodes of each row by number, from 1."""
    numbers: dict[Hashable, int] = {}
    return [[numbers.setdefault(point, len(numbers) + 1) for point in passed] for passed in ways]


def extended(stem: Response, kept: int, piece: Response) -> Response:
    """The first tokens of a response with a continuation of them."""
    return replace(
        piece,
        tokens=stem.tokens[:kept] + piece.tokens,
        logp=stem.logp[:kept] + piece.logp,
        entropy=stem.entropy[:kept] + piece.entropy,
        support=stem.supports[:kept] + piece.support,
        versions=stem.versions[:kept] + piece.versions,
        temperature=stem.temperature,
        top=[],
    )


class Branching(Part):
    """Where a tree grows next."""

    returns: ClassVar[bool] = True
    """It may fork what was drawn to its end; what is computed is then held."""

    @property
    def top(self) -> int:
        """How many of the likeliest tokens it wants to know at each place."""
        return 0

    @property
    def width(self) -> int | None:
        """How many leaves it makes of itself, at most; None where it makes as many as it is asked for."""
        return None

    def mark(self, piece: Response, sampler: Sampler) -> list[float]:
        """What the rule wants to know later of each token that was drawn."""
        return []

    def __call__(self, tree: Growth, size: int) -> list[Fork]:
        """The forks of the next round, none when the tree is done. ``size`` is how many leaves it shall have."""
        raise NotImplementedError


@part
class Levels(Branching):
    """Every open row splits at the end of each level: ``widths[d]`` children of at most ``segment`` tokens at depth d,
    those of the last level to the end. A row that has ended is a leaf, so there may be fewer than the product of the
    widths. Source: SPO-tree, arXiv:2505.23564."""

    widths: Annotated[tuple[Count, ...], Field(min_length=1)] = (6, 6, 6)
    """Children of a node, by depth."""
    segment: Count = 30
    """Tokens of a node above the last level."""

    returns: ClassVar[bool] = False

    @property
    def width(self) -> int | None:
        return math.prod(self.widths)

    def __call__(self, tree: Growth, size: int) -> list[Fork]:
        if tree.rounds == len(self.widths):
            return []
        length = None if tree.rounds == len(self.widths) - 1 else self.segment
        return [Fork(i, len(tree.rows[i].tokens), self.widths[tree.rounds], length) for i in tree.open()]


@part
class Tree(Rollout):
    """Responses to a prompt that share their beginnings, each beginning computed once.

    The leaves are the responses; every one is a row with its whole path. A rule says in rounds where the tree grows.
    Raises ``ValueError`` where ``size`` is not what the rule makes.
    """

    branching: Branching = Levels(widths=(2, 4))
    """Where the tree grows."""

    def __post_init__(self) -> None:
        if self.branching.width not in (None, self.size):
            raise ValueError(f"size is {self.size}, but the branching makes {self.branching.width} leaves")

    async def draw(self, question: Question, context: Context) -> list[Response]:
        tree, asked = Growth(question.budget, self.temperature, ("tree", question.key)), 0
        while forks := self.branching(tree, self.size):
            drawn = await asyncio.gather(
                *(self._continue(tree, fork, question, context, asked + i) for i, fork in enumerate(forks))
            )
            for fork, pieces in zip(forks, drawn, strict=True):
                tree.add(fork, pieces, [self.branching.mark(piece, context.sampler) for piece in pieces])
            asked, tree.rounds = asked + len(forks), tree.rounds + 1
        return tree.leaves()

    async def _continue(
        self, tree: Growth, fork: Fork, question: Question, context: Context, number: int
    ) -> list[Response]:
        left = question.budget - fork.kept
        return await context.sampler.generate(
            (*question.tokens, *tree.rows[fork.row].tokens[: fork.kept]), n=fork.n, max_tokens=min(left, fork.length or left),
            temperature=self.temperature, key=(*question.key, number), top=self.branching.top,
            keep=self.branching.returns or fork.length is not None,
        )  # fmt: skip
