"""Answers of a model as a task: which of them become texts to learn from, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from policyopt.data import load_task
from policyopt.data.answered import Answered, asked
from policyopt.errors import UserError
from policyopt.items import Example, user
from tests.tiny import write_task

QUESTION = Example("q", user("2+3"), "5")


def answered(*rows: tuple[str, float, int]) -> Answered:
    """Responses with score and length; right from a score of 0.5 on."""
    texts, scores, lengths = zip(*rows, strict=True)
    return Answered(0, "q", texts, scores, tuple(s >= 0.5 for s in scores), lengths)


def test_pairs_by_score() -> None:
    row = answered(("a", 0.5, 9), ("b", 1.0, 30), ("c", 1.0, 3), ("d", 0.0, 2), ("e", 0.0, 1))
    assert row.pairs("score") == [("b", "d")]  # the first of equals
    assert answered(("a", 1.0, 1), ("b", 1.0, 9)).pairs("score") == []
    assert Answered(0, "q", (), (), (), ()).pairs("score") == []


def test_pairs_by_length() -> None:
    """The shortest right one against each that is wrong, and each right one that is half as long again."""
    row = answered(("a", 1.0, 14), ("b", 1.0, 10), ("c", 0.0, 3), ("d", 1.0, 15), ("e", 0.0, 40), ("c", 0.0, 3))
    assert row.pairs("length") == [("b", "c"), ("b", "d"), ("b", "e")]
    assert answered(("a", 1.0, 10), ("b", 1.0, 14)).pairs("length") == []
    assert answered(("a", 0.0, 1), ("b", 0.0, 9)).pairs("length") == []
    several = row.examples(QUESTION, "pairs", "length")
    assert [(e.id, e.chosen, e.rejected) for e in several] == [("q#0", "b", "c"), ("q#1", "b", "d"), ("q#2", "b", "e")]


def test_demonstrations_are_right() -> None:
    row = answered(("a", 0.0, 1), ("b", 0.7, 9), ("c", 1.0, 30), ("d", 0.6, 5))
    assert (row.right("score"), row.right("length")) == ("c", "d")
    assert answered(("a", 0.0, 1)).right("score") is None


def test_forms() -> None:
    row = answered(("a", 0.0, 1), ("b", 1.0, 9))
    (scored,) = row.examples(QUESTION, "scored", "score")
    assert (scored.responses, scored.scores) == (("a", "b"), (0.0, 1.0))
    labelled = row.examples(QUESTION, "labelled", "score")
    assert [(e.id, e.labelled, e.label) for e in labelled] == [("q#0", "a", False), ("q#1", "b", True)]
    assert answered(("a", 1.0, 1)).examples(QUESTION, "scored", "score") == []


def folder_of(path: Path, rows: list[dict[str, Any]], **changed: Any) -> Path:
    """Answers to the tiny task."""
    settings = write_task(path)
    origin = {
        "task": settings["task"], "judge": settings["judge"], "judge_options": {}, "columns": None, "eval_task": None, "prior": None,
        "seed": 0, "heldout": 6,
    }  # fmt: skip
    out = path / "answers"
    out.mkdir()
    (out / "origin.json").write_text(json.dumps(origin | changed))
    (out / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return out


def row(place: int, id: str, **changed: Any) -> dict[str, Any]:
    return {
        "place": place, "id": id, "responses": ["x", "y"], "scores": [1, 0], "correct": [True, False], "lengths": [1, 2],
    } | changed  # fmt: skip


def ids(path: Path) -> list[str]:
    """Of the tiny task's training questions."""
    settings = write_task(path)
    return [e.id for e in load_task(settings["task"], judge=settings["judge"], heldout=6).train]


def test_task(tmp_path: Path) -> None:
    """Questions, held-out ones and judge are those of the task that was answered."""
    first, second, *_ = ids(tmp_path)
    out = folder_of(tmp_path, [row(0, first), row(1, second, scores=[0, 0])])
    task = load_task(f"answers:{out}:pairs")
    (example,) = task.train
    assert (example.id, example.chosen, example.rejected) == (first, "x", "y")
    assert task.texts == {"chosen", "rejected"}
    assert len(task.heldout) == 6
    assert task.judge is not None and task.judge.name.endswith("judge.py:score")
    assert task.notes[-1] == f"pairs of the answers in {out}: 1, of 1 of 2 questions"


@pytest.mark.parametrize(
    ("rows", "form", "said"),
    [
        ([row(1, "ID")], "pairs", "the task has changed"),
        ([row(99, "ID")], "pairs", "has none in that place"),
        ([row(0, "ID", scores=[0, 0])], "pairs", "of no question is one response better"),
        ([row(0, "ID", correct=[False, False])], "demonstrations", "no response is right"),
        ([row(0, "ID", scores=[1])], "scored", "line 1: expected place, id"),
        ([row(0, "ID", lengths=["a", "b"])], "scored", "line 1: expected place, id"),
    ],
)
def test_refused(tmp_path: Path, rows: list[dict[str, Any]], form: str, said: str) -> None:
    first = ids(tmp_path)[0]
    out = folder_of(tmp_path, [{**r, "id": first} for r in rows])
    with pytest.raises(UserError, match=said):
        load_task(f"answers:{out}:{form}")


def test_names(tmp_path: Path) -> None:
    assert asked("answers:/a:b/c:pairs") == (Path("/a:b/c"), "pairs", "score")
    assert asked("answers:x:pairs:length") == (Path("x"), "pairs", "length")
    for wrong in ("answers:x", "answers:x:pair", "answers::pairs", "answers:x:pairs:longest"):
        with pytest.raises(UserError, match="expected answers:FOLDER:FORM"):
            asked(wrong)
    with pytest.raises(UserError, match="no answers lie in"):
        load_task(f"answers:{tmp_path}:pairs")
    out = folder_of(tmp_path, [])
    with pytest.raises(UserError, match="brings its own judge"):
        load_task(f"answers:{out}:pairs", judge="math")
    (out / "origin.json").write_text('{"task": "chain_sum"}')
    with pytest.raises(UserError, match="expected an object with task, judge"):
        load_task(f"answers:{out}:pairs")
