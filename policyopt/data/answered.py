"""The task ``answers:FOLDER:FORM``: what a model has answered to the questions of another task, judged, as texts to learn from.

The folder holds two files: ``rows.jsonl``, a line for each question with its responses and their scores, and ``origin.json``, which
says where the questions are from. A stage of a plan leaves one (:mod:`policyopt.stages.answers`). Held-out questions, judge and budget are
those of the task that was answered. Nothing here imports torch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from policyopt.errors import UserError
from policyopt.files import MAX_JSON, Malformed, parse_json, read_bytes, read_json
from policyopt.items import Example, Task

PREFIX = "answers:"
ROWS, ORIGIN = "rows.jsonl", "origin.json"
Form = Literal["pairs", "demonstrations", "scored", "labelled"]
By = Literal["score", "length"]
BRINGS: Mapping[str, frozenset[str]] = {
    "pairs": frozenset({"chosen", "rejected"}),
    "demonstrations": frozenset({"completion"}),
    "scored": frozenset({"responses"}),
    "labelled": frozenset({"labelled"}),
}
"""What the examples of each form bring, of :data:`policyopt.items.BROUGHT`."""
LONGER = 1.5
"""From so many times the tokens of the shortest right response on another right one is rejected (Kimi k1.5, arXiv:2501.12599, section 2.4,
long2short DPO)."""


@dataclass(frozen=True)
class Answered:
    """A question and what was answered to it; only responses that the judge gave a score."""

    place: int
    """Of the question among those that its task trains on."""
    id: str
    responses: tuple[str, ...]
    scores: tuple[float, ...]
    correct: tuple[bool, ...]
    lengths: tuple[int, ...]
    """Tokens of each response."""

    def right(self, by: By) -> str | None:
        """A right response: the first of the highest score, or the shortest; ``None`` where none is right."""
        found = [i for i, right in enumerate(self.correct) if right]
        best = min(found, key=lambda i: -self.scores[i] if by == "score" else self.lengths[i], default=None)
        return None if best is None else self.responses[best]

    def pairs(self, by: By) -> list[tuple[str, str]]:
        """Better and worse responses; none where no two are.

        By ``score``: the first of the highest against the first of the lowest. By ``length``: the shortest right one against each that is
        wrong, and each right one of :data:`LONGER` times its length or more. Wrong ones of Kimi k1.5 are longer too; where short answers
        are mostly wrong, that teaches that less is better whatever it says.
        """
        order = range(len(self.responses))
        if by == "score":
            best = max(order, key=lambda i: self.scores[i], default=0)
            worst = min(order, key=lambda i: self.scores[i], default=0)
            unlike = bool(self.responses) and self.scores[best] > self.scores[worst]
            return [(self.responses[best], self.responses[worst])] if unlike else []
        best = min((i for i in order if self.correct[i]), key=lambda i: self.lengths[i], default=-1)
        if best < 0:
            return []
        bad = [i for i in order if not self.correct[i] or self.lengths[i] >= LONGER * self.lengths[best]]
        return [(self.responses[best], text) for text in dict.fromkeys(self.responses[i] for i in bad)]

    def examples(self, question: Example, form: Form, by: By) -> list[Example]:
        """The question with these answers in a form: one example, none where the form cannot be had of them, one for each pair, and of
        ``labelled`` one for each response."""
        change: Callable[..., Example] = dataclasses.replace
        if form == "pairs":
            made = [change(question, chosen=chosen, rejected=rejected) for chosen, rejected in self.pairs(by)]
            return made if len(made) < 2 else [change(e, id=f"{e.id}#{i}") for i, e in enumerate(made)]
        if form == "demonstrations":
            text = self.right(by)
            return [] if text is None else [change(question, completion=text)]
        if form == "scored":
            whole = len(self.responses) > 1
            return [change(question, responses=self.responses, scores=self.scores)] if whole else []
        labelled = zip(self.responses, self.correct, strict=True)
        return [
            change(question, id=f"{question.id}#{i}", labelled=text, label=good)
            for i, (text, good) in enumerate(labelled)
        ]


def asked(spec: str) -> tuple[Path, Form, By]:
    """Folder, form and order of the name ``answers:FOLDER:FORM`` or ``answers:FOLDER:FORM:length``.

    Raises :class:`~policyopt.errors.UserError` for a name that is no such one.
    """
    folder, by = spec.removeprefix(PREFIX), "score"
    if folder.rpartition(":")[2] in get_args(By):
        folder, _, by = folder.rpartition(":")
    folder, _, form = folder.rpartition(":")
    if form not in BRINGS or not folder:
        forms = ", ".join(BRINGS)
        raise UserError(
            f"task {spec!r}: expected {PREFIX}FOLDER:FORM with a form among {forms}, and :length behind it or not"
        )
    return Path(folder), form, by  # type: ignore[return-value]


def need_answers(spec: str) -> None:
    """Raises :class:`~policyopt.errors.UserError` for a name of no such form, and for a folder in which no answers lie."""
    folder, _, _ = asked(spec)
    if not (folder / ORIGIN).is_file():
        raise UserError(
            f"task {spec!r}: no answers lie in {folder} ({ORIGIN} is missing): a stage of a plan with `answers` leaves them there"
        )


def read_origin(folder: Path) -> dict[str, Any]:
    """Where the questions are from: ``task`` and what it was loaded with, as :func:`policyopt.data.load_task` takes it.

    Raises :class:`~policyopt.errors.UserError` for a file that holds something else.
    """
    found = read_json(folder / ORIGIN, 1 << 20)
    names = ("task", "judge", "judge_options", "columns", "eval_task", "prior", "seed", "heldout")
    if not isinstance(found, dict) or not all(name in found for name in names):
        raise UserError(f"{folder / ORIGIN}: expected an object with {', '.join(names)}")
    return {name: found[name] for name in names}


def answered_task(spec: str, inner: Task) -> Task:
    """The task of a name, from the one whose questions were answered.

    Raises :class:`~policyopt.errors.UserError` where the answers are to other questions than this task has, and where none of them
    can be had in the form.
    """
    folder, form, by = asked(spec)
    rows = read_rows(folder / ROWS)
    examples: list[Example] = []
    answered = 0
    for line, row in enumerate(rows, 1):
        question = inner.train[row.place] if 0 <= row.place < len(inner.train) else None
        if question is None or question.id != row.id:
            there = "none" if question is None else question.id
            raise UserError(
                f"{folder / ROWS}, line {line}: an answer to {row.id}, and {inner.name} has {there} in that place: the task has changed "
                "since it was answered"
            )
        made = row.examples(question, form, by)
        answered += bool(made)
        examples += made
    if not examples:
        lack = {
            "pairs": "of no question is one response better than another",
            "demonstrations": "no response is right",
            "scored": "no question has two responses with a score",
            "labelled": "no response has a score",
        }[form]
        raise UserError(f"task {spec!r}: of {len(rows)} answered questions there are no {form}: {lack}")
    note = f"{form} of the answers in {folder}: {len(examples)}, of {answered} of {len(rows)} questions"
    return dataclasses.replace(inner, train=examples, texts=BRINGS[form], notes=(*inner.notes, note))


def read_rows(path: Path) -> list[Answered]:
    """The answers in a file. Raises :class:`~policyopt.errors.UserError` naming the line that is none."""
    found = []
    for number, line in enumerate(read_bytes(path, MAX_JSON).splitlines(), 1):
        try:
            found.append(_row(parse_json(line)))
        except Malformed as error:
            raise UserError(f"{path}, line {number}: not JSON ({error})") from error
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{path}, line {number}: expected place, id, responses and for each of these scores, correct and lengths ({error})"
            ) from error
    return found


def _row(data: Mapping[str, Any]) -> Answered:
    columns: Sequence[Sequence[Any]] = [data[name] for name in ("responses", "scores", "correct", "lengths")]
    if not all(isinstance(c, list) and len(c) == len(columns[0]) for c in columns):
        raise ValueError("lists of unlike length")
    responses, scores, correct, lengths = columns
    return Answered(
        int(data["place"]), str(data["id"]), tuple(map(str, responses)), tuple(map(float, scores)), tuple(map(bool, correct)),
        tuple(map(int, lengths)),
    )  # fmt: skip
