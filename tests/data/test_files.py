"""Every format gives the same rows, and what cannot be read ends in one line that names the place."""

from __future__ import annotations

import csv
import gzip
import json
import math
import time
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from policyopt.data import files as reading
from policyopt.data import load_task
from policyopt.data.dataset import load_dataset_task
from policyopt.data.files import read
from policyopt.errors import UserError

ROWS = [{"prompt": f"What is\n{i}, \"{i}\"; ü?", "answer": str(i)} for i in range(8)]  # fmt: skip
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)


def table(path: Path, delimiter: str) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["prompt", "answer"], delimiter=delimiter)
        writer.writeheader()
        writer.writerows(ROWS)


def made(folder: Path, kind: str) -> str:
    """The same rows in a file of some kind."""
    path, arrow = folder / f"d.{kind.split(' ')[0]}", pyarrow.Table.from_pylist(ROWS)
    match kind:
        case "jsonl":
            path.write_text(LINES)
        case "jsonl with a mark and returns":
            path.write_bytes(b"\xef\xbb\xbf" + LINES.replace("\n", "\r\n").encode())
        case "jsonl.gz":
            path.write_bytes(gzip.compress(LINES.encode()))
        case "json":
            path.write_text(json.dumps(ROWS, indent=1))
        case "json with data":
            path.write_text(json.dumps({"version": 1, "data": ROWS}))
        case "json of lines":
            path.write_text(LINES)
        case "csv":
            table(path, ",")
        case "csv with semicolons":
            table(path, ";")
        case "csv.gz":
            table(folder / "plain.csv", ",")
            path.write_bytes(gzip.compress((folder / "plain.csv").read_bytes()))
        case "tsv":
            table(path, "\t")
        case "parquet":
            pyarrow.parquet.write_table(arrow, path)
        case "arrow":
            with pyarrow.OSFile(str(path), "wb") as file, pyarrow.ipc.new_file(file, arrow.schema) as writer:
                writer.write_table(arrow)
        case "arrow as a stream":
            with pyarrow.OSFile(str(path), "wb") as file, pyarrow.ipc.new_stream(file, arrow.schema) as writer:
                writer.write_table(arrow)
    return str(path)


KINDS = [
    "jsonl", "jsonl with a mark and returns", "jsonl.gz", "json", "json with data", "json of lines", "csv", "csv with semicolons",
    "csv.gz", "tsv", "parquet", "arrow", "arrow as a stream",
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_gives_the_same_rows(kind: str, tmp_path: Path) -> None:
    assert [row for _, _, row in read(made(tmp_path, kind), "d")] == ROWS


def test_rows_of_a_table_are_counted_in_lines_of_the_file(tmp_path: Path) -> None:
    rows = read(made(tmp_path, "csv"), "d.csv")  # each prompt has a line break
    assert [(where, number) for where, number, _ in rows] == [("d.csv, line", 2 + 2 * i) for i in range(8)]


def test_folders_that_datasets_saved(tmp_path: Path) -> None:
    import datasets

    test = datasets.Dataset.from_list(ROWS[:3])
    test.save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict({"train": datasets.Dataset.from_list(ROWS), "test": test}).save_to_disk(str(tmp_path / "two"))
    assert len(read(str(tmp_path / "one"), "one")) == len(read(f"{tmp_path}/two@test", "two")) == 3
    assert [row for _, _, row in read(f"{tmp_path}/two", "two")] == ROWS
    with pytest.raises(UserError, match=r"no split 'tset': choose one, .*two@train or .*two@test"):
        read(f"{tmp_path}/two@tset", "two")
    task = load_task(f"{tmp_path}/one", judge="exact", heldout=2, whole=True)
    assert len(task.heldout) == 2 and task.heldout[0].id.startswith("one:")


def test_a_split_of_a_dataset_on_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked = []

    def load(*args: Any, **kwargs: Any) -> Any:
        asked.append((*args, kwargs["split"]))
        return datasets.Dataset.from_list(ROWS)

    monkeypatch.setattr(datasets, "load_dataset", load)
    for spec in (
        "owner/name",
        "owner/name:main@test",
        "owner/name@train[:50%]",
        "hf://gsm8k:main",
        "hf://datasets/o/n@test",
    ):
        assert len(read(spec, "d")) == 8
    assert asked == [
        ("owner/name", None, "train"), ("owner/name", "main", "test"), ("owner/name", None, "train[:50%]"),
        ("gsm8k", "main", "train"), ("o/n", None, "test"),
    ]  # fmt: skip


def test_a_dataset_without_the_split_says_how_to_name_one(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def load(*args: Any, **kwargs: Any) -> Any:
        raise ValueError("Unknown split \"train\". Should be one of ['test'].")

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(UserError, match=r"Should be one of \['test'\]\.: name one, owner/name@SPLIT"):
        read("owner/name", "owner/name")


GOOD = b'{"prompt": "q", "answer": "a"}\n'


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("d.jsonl", GOOD + b'{"prompt": "q", "prompt": "r"}', "line 2: the key 'prompt' stands there twice"),
        ("d.jsonl", GOOD + b'{"prompt": "q", "meta": {"a": 1, "a": 2}}', "line 2: the key 'a' stands there twice"),
        ("d.jsonl", b'{"prompt": "q", "answer": -Infinity}', "line 1: -Infinity is no JSON"),
        ("d.jsonl", b'{"' + b"k" * 1000 + b'": 1}', "line 1: a key has 1,000 characters, at most 200 are read"),
        ("d.jsonl", b'{"prompt": "q\x00", "answer": "a"}', "line 1: holds a null byte"),
        ("d.jsonl", b'{"prompt": "q\\u0000", "answer": "a"}', "line 1: prompt: holds a null character"),
        ("d.jsonl", "[1]".encode("utf-16"), "line 1: UTF-16 text: save the file as UTF-8"),
        ("d.jsonl", b'[\n{"prompt": "q"}\n]', "line 1: the file is one JSON array"),
        ("d.jsonl", b'{"prompt": "q", "answer": 1e999}', "line 1: answer is inf, expected a finite number"),
        (
            "d.jsonl",
            json.dumps({f"k{i}": 1 for i in range(2000)}).encode(),
            "line 1: 2,000 columns, at most 1,000 are read",
        ),
        (
            "d.jsonl",
            b'{"prompt": "q", "answer": {"a": 1}}',
            "line 1: answer is an object, expected text or a number: --col",
        ),
        ("d.json", b'{"prompt": "q"', "d.json: not JSON"),
        (
            "d.json",
            b'[{"prompt": "q"},\n {"prompt" 1}]',
            "d.json: not JSON (Expecting ':' delimiter at line 2, column 12)",
        ),
        ("d.json", b'{"rows":\n []}', "d.json: expected a list of objects, or an object with such a list under 'data'"),
        ("d.json", b"[1, 2]", "d.json, row 1: expected an object with prompt and answer, not a number"),
        ("d.json", b"", "d.json: the dataset is empty"),
        ("d.json", b"[" * 100_000, "d.json: nested too deep"),
        ("d.csv", b"prompt,answer\nq,a\nq,b,c\n", "line 3: 3 cells, and the header has 2"),
        ("d.csv", b"prompt,answer\nq,a\nq\n", "line 3: 1 cells, and the header has 2"),
        (
            "d.csv",
            b'prompt,answer\nq,a\n"q,b\nq,c\n',
            "line 3: not a row of a table (unexpected end of data): a quote is opened",
        ),
        ("d.csv", b'prompt,answer\n"q"x,a\n', "line 2: not a row of a table"),
        ("d.csv", b"prompt,prompt\nq,a\n", "line 1: the column 'prompt' stands there twice"),
        ("d.csv", b"prompt,answer\nq,\xe9t\xe9\n", "line 2: not UTF-8"),
        ("d.csv", b"prompt,answer\nq,a\nq,\n", "line 3: no 'answer' (it has prompt)"),
        ("d.csv", b"prompt,answer\n", "d.csv: the dataset is empty"),
        ("d.csv", b"prompt,answer\nq," + b"x" * 200_000, "line 2: not a row of a table (field larger than field limit"),
        ("d.csv.gz", b"prompt,answer\nq,a\n", "d.csv.gz: cannot be read after line 0"),
        ("d.jsonl.gz", gzip.compress(GOOD * 1000)[:-20], "d.jsonl.gz: cannot be read after line"),
        ("d.arrow", b"ARROW1 and no more", "d.arrow: not a readable Arrow file"),
        ("d.arrow", b"", "d.arrow: "),
        ("d.json", b" \n ", "d.json: the dataset is empty"),
    ],
)
def test_what_cannot_be_read(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as error:
        load_dataset_task(str(tmp_path / name))
    assert message in str(error.value) and "\n" not in str(error.value) and len(str(error.value)) < 400


def test_a_line_without_end_is_not_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "LONGEST_LINE", 1 << 20)
    (tmp_path / "d.jsonl").write_bytes(GOOD + b'{"' + b"k" * (5 << 20) + b'": 1}')
    with pytest.raises(UserError, match=r"d\.jsonl, line 2: longer than 1 MB"):
        read(str(tmp_path / "d.jsonl"), "d.jsonl")


def test_an_array_may_stand_on_one_long_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "LONGEST_LINE", 100)
    (tmp_path / "d.json").write_text(json.dumps(ROWS))
    assert [row for _, _, row in read(str(tmp_path / "d.json"), "d")] == ROWS
    monkeypatch.setattr(reading, "LARGEST_ARRAY", 100)
    with pytest.raises(UserError, match=r"d, line 1: longer than"):
        read(str(tmp_path / "d.json"), "d")


def test_the_number_of_rows_of_a_table_is_no_column(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text(",prompt,answer\n0,q,a\n1,r,b\n")  # as pandas writes it
    assert [row for _, _, row in read(str(tmp_path / "d.csv"), "d")] == [
        {"prompt": "q", "answer": "a"}, {"prompt": "r", "answer": "b"},
    ]  # fmt: skip


@pytest.mark.parametrize("judge", [None, "number", "exact", "math"])
def test_an_answer_of_hundreds_of_digits(judge: str | None, tmp_path: Path) -> None:
    rows = [{"prompt": f"q{i}", "answer": int("9" * 400) - i} for i in range(8)]
    (tmp_path / "d.jsonl").write_text("\n".join(map(json.dumps, rows)))
    task = load_dataset_task(str(tmp_path / "d.jsonl"), judge=judge)
    assert all(len(e.answer) == 400 for e in task.train)


def test_values_that_are_no_json_are_text_or_left_out(tmp_path: Path) -> None:
    import datetime

    rows = [{**row, "day": datetime.date(2026, 1, 2), "picture": b"\x00", "empty": math.nan} for row in ROWS]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "d.parquet")
    task = load_dataset_task(str(tmp_path / "d.parquet"))
    assert {json.dumps(dict(e.meta)) for e in task.train} == {'{"day": "2026-01-02"}'}


def test_reading_that_takes_long_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reading, "_BLOCK", 3)
    monkeypatch.setattr(reading, "_TOLD_AFTER", 1.0)
    ticks = iter(range(100))
    monkeypatch.setattr(time, "monotonic", lambda: 2.0 * next(ticks))
    read(made(tmp_path, "jsonl"), "d.jsonl")
    assert capsys.readouterr().err == "reading d.jsonl: 3 rows\nreading d.jsonl: 6 rows\n"
