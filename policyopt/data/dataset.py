"""Tasks from the user's own questions: files, saved folders, datasets of the hub, and mixtures of them.

:mod:`policyopt.data.places` says how they are named, :mod:`policyopt.data.columns` which of their columns is what. Rows have a
prompt and an answer, or texts to learn from: a completion, or a pair of chosen and rejected. All rows are checked before
anything runs, and the first one that cannot be used is named with its file and line (or its row, counted from 1). Further
columns are kept for judges (``Example.meta``).

Held-out questions are chosen by a hash of their prompts, so they stay the same from run to run, whatever the seed and
the order of the rows, and a prompt that occurs twice never falls on both sides. At most a quarter of the rows is held
out. Held-out rows of their own are joined by a comma, ``train.jsonl,heldout.jsonl``, or given as ``eval_task``, which is
measured whole.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from policyopt.data.choose import GIVEN, choose, read_worked
from policyopt.data.columns import find_layout, listed, parse_columns, written
from policyopt.data.examples import columns_of, example, place_of
from policyopt.data.files import read
from policyopt.data.places import Source, distinct, halves, labels, mixture, need_places
from policyopt.data.texts import need_one_kind
from policyopt.errors import UserError
from policyopt.items import BROUGHT, Example, Task
from policyopt.judging.judges import judge_spec, row_error
from policyopt.judging.names import Written

MAX_TOKENS = 512
"""Suggested response budget of a dataset: nothing is known about it."""


@dataclasses.dataclass(frozen=True)
class Rows:
    """The examples of one side of a task."""

    examples: list[Example]
    weights: Mapping[str, float]
    """The weight of each source of a mixture, by its name; empty where all rows come equally often."""
    name: str
    notes: tuple[str, ...]
    """What a user should know of how they were read."""


def load_dataset_task(
    spec: str, *, judge: Written | None = None, options: Mapping[str, Any] | None = None, heldout: int | None = 256,
    columns: str | Mapping[str, str] | None = None, eval_task: str | None = None, whole: bool = False,
    acted: bool = False,
) -> Task:  # fmt: skip
    """The task made of ``spec``, a name as :mod:`policyopt.data.places` describes it.

    Without a judge, all answers decide (:func:`policyopt.data.choose.choose`), and ``judge_reason`` says why. Where the answers
    are worked solutions, the reference is what their last mark says (:func:`policyopt.data.choose.read_worked`).

    Args:
        spec: Rows to train on, and after a comma held-out rows.
        judge: Who judges responses.
        options: Options of the judge.
        heldout: At most so many held-out rows (of those to train on, a quarter at most); ``None``: no bound.
        columns: Which column is what, ``"prompt=question,answer=gold"``; unset: their names say it.
        eval_task: Rows to measure on, all of them; then none of ``spec`` are held out.
        whole: Every row is there to be measured, and those of a held-out file alone where there is one.
        acted: The rows are acted on in an environment, so that they need no answers.

    Raises:
        UserError: A file that is not there or not readable, an empty dataset, a row that cannot be used, a judge that
            cannot work, answers that no judge fits, or held-out prompts that are in the training file too.
    """
    given = judge_spec(judge, options) if judge is not None or options else None
    train, held = _sides(spec, columns, eval_task, whole, acted)
    everything = [*train.examples, *(held.examples if held else ())]
    answered, texts = _alike(everything, acted)
    if judge is not None and not answered:
        raise UserError(f"{spec}: its rows have no 'answer', so that there is nothing to judge by: leave --judge out")
    chosen, reason = None, ""
    if answered:
        everything = read_worked(everything, given, place_of)
        n = len(train.examples)
        train = dataclasses.replace(train, examples=everything[:n])
        held = None if held is None else dataclasses.replace(held, examples=everything[n:])
        chosen, reason = (given, GIVEN) if given else choose(everything, spec, place_of)
    for e in everything if chosen else ():
        if chosen and (error := row_error(chosen, e)):
            raise UserError(f"{place_of(e)}: {error}")
    rest, measured, note = _split_up(train, held, heldout, spec, eval_task is not None, whole)
    notes = (*train.notes, *(held.notes if held else ()), note)
    return Task(
        train.name, tuple(rest), tuple(measured), chosen, MAX_TOKENS, texts=texts, weights=train.weights, notes=notes,
        judge_reason=reason,
    )  # fmt: skip


def _alike(examples: list[Example], acted: bool) -> tuple[bool, frozenset[str]]:
    """Whether all rows have an answer, and the given texts that all of them have; refuses rows that differ."""
    first = examples[0]
    names = ("answer", *BROUGHT)
    for e in examples:
        for name in names:
            if bool(getattr(e, name)) != bool(getattr(first, name)):
                one, other = (first, e) if getattr(first, name) else (e, first)
                what = "label" if name == "labelled" else name
                raise UserError(
                    f"{place_of(other)}: no {what!r}, which {place_of(one)} has: all rows need the same columns"
                )
    texts = frozenset(name for name in BROUGHT if getattr(first, name))
    if not first.answer and not texts and not acted:
        raise UserError(
            f"{place_of(first)}: nothing to judge by and nothing to learn from: expected an answer, or messages that end with "
            "one of the assistant"
        )
    return bool(first.answer), texts


# Reading


def _sides(
    spec: str, columns: str | Mapping[str, str] | None, eval_task: str | None, whole: bool, acted: bool
) -> tuple[Rows, Rows | None]:
    """The rows to train on, and those to measure on where they are named by themselves."""
    named = halves(spec)
    if eval_task is not None and len(named) == 2:
        raise UserError(f"{spec} names held-out rows, and --eval-task {eval_task} others: leave one of them out")
    named = [*named, *([] if eval_task is None else [eval_task])]
    for name in named:
        need_places(name)
    sources = [mixture(name) for name in (named[1:] or named if whole else named)]
    if len(sources) > 1 and (weighted := [s.spec for s in sources[1] if s.weight is not None]):
        raise UserError(f"{weighted[0]}: held-out rows are all measured, so that a weight means nothing: leave it out")
    names = distinct(place for side in sources for source in side for place in source.places())
    asked = parse_columns(written(columns))
    train, *held = (_rows(side, names, asked, acted) for side in sources)
    return train, held[0] if held else None


def _rows(sources: Sequence[Source], names: Mapping[str, str], asked: Mapping[str, str], acted: bool) -> Rows:
    """The rows of a mixture."""
    called = labels(sources)
    if len(sources) == 1 and sources[0].weight is not None:
        raise UserError(f"{sources[0].spec}: a weight is for several sources, joined by +: leave it out")
    examples: list[Example] = []
    said: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for source in sources:
        for place in source.places():
            found, notes = _file(place, names[place], asked, called[source] if len(sources) > 1 else "", acted)
            examples += found
            for note in notes:
                said[note].append(names[place])
    weighted = any(source.weight is not None for source in sources)
    weights = {called[s]: 1.0 if s.weight is None else s.weight for s in sources} if weighted else {}
    if weighted:
        shares = ", ".join(f"{name} {weight / sum(weights.values()):.0%}" for name, weight in weights.items())
        said["prompts of the mixture", shares] = []
    specs = distinct(source.spec for source in sources)
    return Rows(examples, weights, "+".join(specs[s.spec] for s in sources), tuple(map(_said, said.items())))


def _said(note: tuple[tuple[str, str], list[str]]) -> str:
    """What is to be said of some files, in a line."""
    (about, what), names = note
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{' '.join([about, *filter(None, [', '.join(names[:3]) + more])])}: {what}"


def _file(
    place: str, name: str, asked: Mapping[str, str], source: str, acted: bool
) -> tuple[list[Example], list[tuple[str, str]]]:
    """The examples of one file, and what is to be said: of what, and what."""
    rows = read(place, name)
    columns = columns_of(rows)
    layout = find_layout(columns, asked, name, acted)
    need_one_kind(rows, layout)
    examples = [example(name, row, layout, source) for row in rows]
    notes = [("columns of", layout.said())]
    kept = {key for e in examples for key in e.meta}
    known = kept | {*layout.columns.values()}
    if lost := [c for c in columns if not {c, c.split(".")[0]} & known]:
        notes.append(("columns that are not kept for judges, in", listed(lost)))
    if "label" in layout.columns:
        good = sum(bool(e.label) for e in examples)
        notes.append(
            (
                "labels of",
                f"{good:,} good, {len(examples) - good:,} bad; what learns from completions does not read them",
            )
        )
    return examples, notes


# Split


_SORTED = json.JSONEncoder(sort_keys=True)


def _key(example: Example) -> str:
    return _SORTED.encode(example.prompt)


def _rank(key: str) -> bytes:
    return hashlib.blake2b(key.encode(), digest_size=16).digest()


def _by_hash(examples: list[Example]) -> list[Example]:
    return sorted(examples, key=lambda example: _rank(_key(example)))


def _split_up(
    train: Rows, held: Rows | None, heldout: int | None, spec: str, named: bool, whole: bool
) -> tuple[list[Example], list[Example], str]:
    """The rows to train on and those to measure on, and how they came about, in words."""
    rows = train.examples
    bound = len(rows) if heldout is None else heldout
    if whole:
        _, measured = _chosen(rows, min(bound, len(rows)))
        note = f"rows of {train.name}: {len(measured):,} of {len(rows):,} measured"
        return rows, measured or rows, note
    if held is None:
        rest, measured = _split(rows, bound, spec)
        return rest, measured, (
            f"rows of {train.name}: {len(rest):,} to train on, {len(measured):,} held out (by a hash of the prompt, up to a "
            "quarter)"
        )  # fmt: skip
    _refuse_overlap(rows, held.examples)
    measured = held.examples if named or heldout is None else _by_hash(held.examples)[:heldout]
    note = f"rows: {len(rows):,} of {train.name} to train on, {len(measured):,} of {len(held.examples):,} of {held.name} held out"
    return rows, measured, note


def _chosen(rows: list[Example], quota: int) -> tuple[list[Example], list[Example]]:
    """The other rows, and up to so many: whole prompts in the order of their hashes."""
    count: defaultdict[str, int] = defaultdict(int)
    keys = [_key(row) for row in rows]
    for key in keys:
        count[key] += 1
    chosen: set[str] = set()
    for key in sorted(count, key=_rank):
        if count[key] <= quota:
            chosen.add(key)
            quota -= count[key]
    sides: tuple[list[Example], list[Example]] = ([], [])
    for key, row in zip(keys, rows, strict=True):
        sides[key in chosen].append(row)
    return sides


def _split(rows: list[Example], heldout: int, source: str) -> tuple[list[Example], list[Example]]:
    """Training and held-out rows: up to a quarter of the rows is held out."""
    rest, held = _chosen(rows, min(heldout, len(rows) // 4))
    if not held:
        raise UserError(
            f"{source}: {len(rows)} rows with {len({_key(row) for row in rows})} different prompts are too few to hold a "
            "quarter out; add rows, or give a held-out file after a comma (train.jsonl,heldout.jsonl) or by --eval-task"
        )
    return rest, held


def _refuse_overlap(train: list[Example], held: list[Example]) -> None:
    seen = {_key(example): example for example in reversed(train)}
    for e in held:
        twin = seen.get(_key(e))
        if twin is not None:
            raise UserError(
                f"{place_of(e)}: this prompt is in the training data too ({place_of(twin)}); "
                "take it out of one of them, or nothing can be said about held-out accuracy"
            )
