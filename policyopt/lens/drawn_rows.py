"""Rows that a method really draws: some of those of the step in which its costs are counted, token by token."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any, Literal

from torch import Tensor

from policyopt.lens.cost import Step, question
from policyopt.rows import Batch

QUESTIONS, ROWS = 3, 10
"""How many questions are shown, and how many rows of each."""

Kind = Literal["own", "read", "guided", "shared"]
KINDS: dict[Kind, tuple[str, str, str]] = {
    "own": ("", "", "the policy's own"),
    "read": ("[", "]", "words that it did not write, such as a hint: read, never trained on"),
    "guided": ("{", "}", "written by a guide in its place"),
    "shared": ("(", ")", "shared with a row above, and drawn once"),
}
"""Kind of token -> the brackets around it in plain text, and what it is."""


@dataclass(frozen=True)
class Token:
    """A token of a row, with its weight."""

    text: str
    kind: Kind
    weight: float


@dataclass(frozen=True)
class DrawnRow:
    """A row that was trained on."""

    question: int
    """Its number among those that are shown, from 1."""
    kinds: tuple[str, ...]
    """What it is beside an answer to the question: auxiliary, chosen or rejected, in another context; and what of it lies in spans."""
    reward: float
    """After shaping."""
    advantage: tuple[float, ...]
    """Of each of its own tokens."""
    tokens: tuple[Token, ...]
    looks: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Name of a second look -> for each token, its log-probability behind the other context less the one that it was drawn with."""

    @property
    def pieces(self) -> Iterator[tuple[Kind, list[Token]]]:
        """Its tokens in runs of one kind."""
        run: list[Token] = []
        for token in self.tokens:
            if run and run[0].kind != token.kind:
                yield run[0].kind, run
                run = []
            run.append(token)
        if run:
            yield run[0].kind, run

    @property
    def weight(self) -> float:
        """The sum of the weights of its tokens."""
        return sum(token.weight for token in self.tokens)


@dataclass(frozen=True)
class Drawn:
    """What a method has drawn in a step, in part."""

    rows: tuple[DrawnRow, ...]
    questions: int
    """Questions of the step with a row that was trained on."""
    total: int
    """Rows of the step."""
    problem: str = ""
    """Why there are none, where that is so."""

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds of tokens that occur in it, beside the policy's own."""
        return tuple(k for k in KINDS if k != "own" and any(t.kind == k for row in self.rows for t in row.tokens))

    @property
    def looks(self) -> tuple[str, ...]:
        """The second looks that were taken at it."""
        return tuple(dict.fromkeys(name for row in self.rows for name in row.looks))

    def seen(self, look: str) -> Drawn:
        """The same rows with what a look found on each token in the place of its weight."""

        def changed(row: DrawnRow) -> DrawnRow:
            tokens = (replace(token, weight=x) for token, x in zip(row.tokens, row.looks[look], strict=True))
            return replace(row, tokens=tuple(tokens))

        return replace(self, rows=tuple(changed(row) for row in self.rows if look in row.looks))

    @property
    def strongest(self) -> float:
        """The largest absolute weight, 0 where there is none."""
        return max((abs(t.weight) for row in self.rows for t in row.tokens), default=0.0)


def drawn_rows(step: Step) -> Drawn:
    """Rows of the step, of the questions that show the most: kinds of rows and tokens, then weights."""
    batch = step.batch
    groups: dict[int, list[int]] = {}
    for i, group in enumerate(batch.group.tolist()):
        groups.setdefault(group, []).append(i)
    kinds = [_kinds(batch, i) for i in range(len(batch))]
    told = {
        group: (len({kinds[i] for i in rows} | _marks(batch, rows)), bool(step.weight[rows].any()))
        for group, rows in groups.items()
    }
    most = QUESTIONS if len(batch) > len(groups) else len(groups)
    chosen = sorted(sorted(groups, key=lambda group: told[group], reverse=True)[:most])
    found = []
    for number, group in enumerate(chosen, 1):
        rows = _some(groups[group], kinds)
        shared = _shared(batch, rows)
        found += [_row(step, i, number, kinds[i], n) for i, n in zip(rows, shared, strict=True)]
    return Drawn(tuple(found), len(groups), len(batch))


def _row(step: Step, i: int, number: int, kinds: tuple[str, ...], shared: int) -> DrawnRow:
    batch = step.batch
    own = batch.mask[i] > 0
    there = own if batch.present is None else batch.present[i] > 0
    n = int(there.sum())
    guided = None if batch.guided is None else batch.guided[i] > 0

    def kind(t: int) -> Kind:
        if not own[t]:
            return "read"
        if guided is not None and guided[t]:
            return "guided"
        return "shared" if t < shared else "own"

    pieces, weight = step.text.pieces(batch.tokens[i, :n].tolist()), step.weight[i, :n].tolist()
    return DrawnRow(
        number,
        (*kinds, *_spans(batch, i, pieces)),
        float(batch.total_reward()[i]) if batch.reward is not None else 0.0,
        tuple(batch.advantage[i][own].tolist()) if batch.advantage is not None else (),
        tuple(Token(piece, kind(t), w + 0.0) for t, (piece, w) in enumerate(zip(pieces, weight, strict=True))),
        {name: tuple((x - batch.old_logp)[i, :n].tolist()) for name, x in batch.members("behind").items()},
    )


def _kinds(batch: Batch, i: int) -> tuple[str, ...]:
    """What the columns and the record of a row say that it is."""
    found = []
    origin = _entry(batch.origin, i)
    if batch.chosen is not None:
        found.append("chosen" if _entry(batch.chosen, i) > 0.5 else "rejected")
    if origin > 0:
        found.append(f"auxiliary {origin:.0f}")
    record = (batch.records or [{}])[i] if batch.records else {}
    if "id" in record and record.get("prompt") != question(record["id"]):
        found.append("another question")
    if _entry(batch.turn, i) > 0:
        found.append(f"turn {_entry(batch.turn, i) + 1:.0f}")
    return tuple(found)


def _spans(batch: Batch, i: int, pieces: list[str]) -> list[str]:
    """The words of a row that lie in spans, run by run: ``"LastAnswer: 42"``."""
    found = []
    for name, column in batch.members("span").items():
        inside = column[i, : len(pieces)].tolist()
        runs = groupby(zip(pieces, inside, strict=True), key=lambda pair: pair[1] > 0)
        said = ["".join(piece for piece, _ in run).strip() for there, run in runs if there]
        found += [f"{name}: {' | '.join(said)}"] if said else []
    return found


def _entry(column: Any, i: int) -> float:
    return 0.0 if column is None else float(column[i])


def _marks(batch: Batch, rows: list[int]) -> set[tuple[str, ...]]:
    """Whether somebody else's words, or a guide's, stand in some rows."""
    read = batch.present is not None and bool((batch.present[rows] > batch.mask[rows]).any())
    guided = batch.guided is not None and bool((batch.guided[rows] > 0).any())
    return {(name,) for name, there in (("read", read), ("guided", guided)) if there}


def _some(rows: list[int], kinds: list[tuple[str, ...]]) -> list[int]:
    """At most ``ROWS`` rows: the first of each kind, and others evenly spread."""
    first = {kinds[i]: i for i in reversed(rows)}
    taken = set(sorted(first.values())[:ROWS])
    spread = [rows[k * len(rows) // ROWS] for k in range(ROWS)] if len(rows) > ROWS else rows
    for i in spread:
        if len(taken) < ROWS:
            taken.add(i)
    return sorted(taken)


def _shared(batch: Batch, rows: list[int]) -> list[int]:
    """How many tokens at the beginning of each row stand in a row above too: nodes of a tree, or a thought from which
    several answers were forced."""
    seen: set[int] = set()
    thoughts: dict[float, tuple[int, int]] = {}
    found = []
    for i in rows:
        shared = 0
        if batch.node is not None:
            for node, end in zip(batch.node[i].tolist(), batch.node_end[i].tolist(), strict=True):
                if node in seen:
                    shared = max(shared, int(end))
            seen |= {node for node in batch.node[i].tolist() if node > 0}
        cut, thought = int(_entry(batch.cut, i)) if batch.cut is not None else -1, _entry(batch.thought, i)
        length = int(_there(batch)[i].sum())
        forced, whole = thoughts.get(thought, (0, 0))
        # Whole responses alone share nothing, though all of them have a thought.
        shared = max(shared, min(cut, max(forced, whole)) if cut >= 0 else min(length, forced))
        thoughts[thought] = (max(forced, cut), whole) if cut >= 0 else (forced, max(whole, length))
        found.append(shared)
    return found


def _there(batch: Batch) -> Tensor:
    found: Tensor = batch.mask if batch.present is None else batch.present
    return found
