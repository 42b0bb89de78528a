"""Tasks from the user's own questions."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policyopt.data import Task, load_task
from policyopt.errors import UserError
from policyopt.items import JudgeSpec


def rows(count: int, start: int = 0) -> list[dict[str, Any]]:
    return [{"prompt": f"What is {i} + 1?", "answer": str(i + 1)} for i in range(start, start + count)]


def write(path: Path, data: list[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in data))
    return str(path)


def prompts(examples) -> list[str]:
    return [example.prompt[-1]["content"] for example in examples]


def test_a_jsonl_file(tmp_path) -> None:
    task = load_task(write(tmp_path / "data.jsonl", rows(40)), judge="number")
    assert task.name == "data.jsonl"
    assert task.judge == JudgeSpec("number")
    assert (len(task.train), len(task.heldout)) == (30, 10)
    for example in [*task.train, *task.heldout]:
        number = int(re.findall(r"\d+", prompts([example])[0])[0])
        assert example.answer == str(number + 1)
        assert example.id == f"data.jsonl:{number + 1}"
        assert example.prompt == ({"role": "user", "content": f"What is {number} + 1?"},)


def test_parquet_gives_the_same_task(tmp_path) -> None:
    data = rows(40)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(data), tmp_path / "data.parquet")
    parquet = load_task(str(tmp_path / "data.parquet"), judge="exact")
    jsonl = load_task(write(tmp_path / "data.jsonl", data), judge="exact")
    assert prompts(parquet.train) == prompts(jsonl.train)
    assert prompts(parquet.heldout) == prompts(jsonl.heldout)
    assert {e.id for e in [*parquet.train, *parquet.heldout]} == {f"data.parquet:{i}" for i in range(1, 41)}


def test_worked_solutions_are_read_where_there_are_some(tmp_path) -> None:
    data = [row | {"solution": f"so it is\n{i}" if i % 2 else None} for i, row in enumerate(rows(40))]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(data), tmp_path / "data.parquet")
    for task in (load_task(str(tmp_path / "data.parquet")), load_task(write(tmp_path / "data.jsonl", data))):
        for example in [*task.train, *task.heldout]:
            number = int(example.answer) - 1
            assert example.solution == (f"so it is\n{number}" if number % 2 else None)


def test_chat_messages_and_plain_numbers(tmp_path) -> None:
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2+2?"}]
    data = [*rows(8), {"prompt": chat, "answer": 4, "source": "ignored"}, {"prompt": "half?", "answer": 0.5}]
    task = load_task(write(tmp_path / "d.jsonl", data), judge="number")
    every = {example.id: example for example in [*task.train, *task.heldout]}
    assert every["d.jsonl:9"].prompt == tuple(chat)
    assert (every["d.jsonl:9"].answer, every["d.jsonl:10"].answer) == ("4", "0.5")


def test_chat_messages_in_parquet(tmp_path) -> None:
    chat = [{"role": "user", "content": "2+2?", "name": None}]
    table = pyarrow.Table.from_pylist([{"prompt": [{**chat[0], "content": f"{i}?"}], "answer": "4"} for i in range(8)])
    pyarrow.parquet.write_table(table, tmp_path / "c.parquet")
    task = load_task(str(tmp_path / "c.parquet"), judge="exact")
    assert {e.prompt[0]["content"] for e in [*task.train, *task.heldout]} == {f"{i}?" for i in range(8)}
    assert all(set(e.prompt[0]) == {"role", "content"} for e in task.train)


def test_blank_lines_and_a_byte_order_mark_are_skipped(tmp_path) -> None:
    path = tmp_path / "d.jsonl"
    lines = [json.dumps(row) for row in rows(4)]
    path.write_bytes(b"\xef\xbb\xbf" + "\n\n".join(lines).encode() + b"\n  \n")
    task = load_task(str(path))
    assert sorted(e.id for e in [*task.train, *task.heldout]) == [f"d.jsonl:{n}" for n in (1, 3, 5, 7)]


# Train and held-out


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from("abcdefghijkl"), min_size=8, max_size=80),
    st.integers(1, 30),
    st.randoms(use_true_random=False),
)
def test_split(tmp_path_factory, letters, heldout, random) -> None:
    folder = tmp_path_factory.mktemp("split")
    data = [{"prompt": letter, "answer": str(i)} for i, letter in enumerate(letters)]
    try:
        task = load_task(write(folder / "d.jsonl", data), judge="exact", heldout=heldout)
    except UserError:
        assert min(map(letters.count, letters)) > min(heldout, len(letters) // 4)
        return
    assert not set(prompts(task.train)) & set(prompts(task.heldout))
    assert sorted(e.answer for e in [*task.train, *task.heldout]) == sorted(row["answer"] for row in data)
    assert 1 <= len(task.heldout) <= min(heldout, len(data) // 4)
    random.shuffle(data)
    again = load_task(write(folder / "d.jsonl", data), judge="exact", heldout=heldout, seed=7)
    assert set(prompts(again.heldout)) == set(prompts(task.heldout))


def test_heldout_is_as_large_as_asked_for_or_a_quarter(tmp_path) -> None:
    path = write(tmp_path / "d.jsonl", rows(400))
    small, large = load_task(path, heldout=16), load_task(path, heldout=1000)
    assert (len(small.heldout), len(large.heldout)) == (16, 100)
    # The smaller set is part of the larger one, so results stay comparable
    assert set(prompts(small.heldout)) < set(prompts(large.heldout))


def test_a_heldout_file(tmp_path) -> None:
    train, held = write(tmp_path / "train.jsonl", rows(20)), write(tmp_path / "held.jsonl", rows(20, start=50))
    task = load_task(f"{train},{held}", heldout=12)
    assert (len(task.train), len(task.heldout)) == (20, 12)
    assert all(e.id.startswith("held.jsonl:") for e in task.heldout)


def test_a_heldout_prompt_that_is_trained_on_is_refused(tmp_path) -> None:
    train = write(tmp_path / "train.jsonl", rows(20))
    held = write(tmp_path / "held.jsonl", [*rows(3, start=50), {"prompt": "What is 7 + 1?", "answer": "8"}])
    with pytest.raises(
        UserError, match=r"held\.jsonl, line 4: this prompt is in the training data too \(train\.jsonl, line 8\)"
    ):
        load_task(f"{train},{held}")


# The judge


def test_options_reach_the_judge(tmp_path) -> None:
    task = load_task(write(tmp_path / "d.jsonl", rows(8)), judge="number", options={"tolerance": 0.5})
    assert task.judge == JudgeSpec("number", {"tolerance": 0.5})
    with pytest.raises(UserError, match="no option 'tol'"):
        load_task(str(tmp_path / "d.jsonl"), judge="number", options={"tol": 0.5})
    with pytest.raises(UserError, match="judge options tolerance are set, but no judge"):
        load_task(str(tmp_path / "d.jsonl"), options={"tolerance": 0.5})


@pytest.mark.parametrize(
    ("judge", "answer", "message"),
    [
        ("number", "seven", "line 6: judge 'number' needs a number, answer is 'seven'"),
        ("choice", "K", "line 6: judge 'choice' needs one of the letters ABCDEFGHIJ, answer is 'K'"),
        ("regex", "(a", "line 6: judge 'regex' needs a regular expression, answer is '(a'"),
    ],
)
def test_an_answer_that_the_judge_cannot_use(tmp_path, judge, answer, message) -> None:
    data = [{"prompt": f"q{i}", "answer": answer if i == 5 else "A" if judge == "choice" else "1"} for i in range(8)]
    with pytest.raises(UserError) as error:
        load_task(write(tmp_path / "d.jsonl", data), judge=judge)
    assert message in str(error.value)


def test_unknown_judge(tmp_path) -> None:
    with pytest.raises(UserError, match="no judge is called 'nummer'; nearest: number"):
        load_task(write(tmp_path / "d.jsonl", rows(8)), judge="nummer")


# Bad input, each named with its place


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"prompt": "q"}', "d.jsonl, line 3: no 'answer' (it has prompt)"),
        ('{"answer": "a"}', "d.jsonl, line 3: no 'prompt' (it has answer)"),
        ('{"prompt": "q", "answer": null}', "d.jsonl, line 3: no 'answer'"),
        ('{"prompt": "q", "answer": ""}', "d.jsonl, line 3: answer is empty"),
        ('{"prompt": " ", "answer": "a"}', "d.jsonl, line 3: prompt is empty"),
        ('{"prompt": "q", "answer": ["a"]}', "d.jsonl, line 3: answer is a list, expected text or a number"),
        ('{"prompt": "q", "answer": true}', "d.jsonl, line 3: answer is true or false, expected text or a number"),
        ('{"prompt": "q", "answer": NaN}', "d.jsonl, line 3: NaN is no JSON: write a number, or null"),
        (
            '{"prompt": 7, "answer": "a"}',
            "d.jsonl, line 3: prompt is a number, expected text or a list of chat messages",
        ),
        ('{"prompt": [], "answer": "a"}', "d.jsonl, line 3: prompt has no messages"),
        ('{"prompt": ["q"], "answer": "a"}', "d.jsonl, line 3: prompt, message 1 is text, expected an object"),
        (
            '{"prompt": [{"role": "user"}], "answer": "a"}',
            "d.jsonl, line 3: prompt, message 1 has role, expected role and content",
        ),
        (
            '{"prompt": [{"role": "bot", "content": "q"}], "answer": "a"}',
            "d.jsonl, line 3: prompt, message 1: role is 'bot', expected one of system, user, assistant, tool",
        ),
        (
            '{"prompt": [{"role": "user", "content": ["q"]}], "answer": "a"}',
            "d.jsonl, line 3: prompt, message 1: content is a list, expected text",
        ),
        ('{"prompt": "\\ud800", "answer": "a"}', "d.jsonl, line 3: prompt: not Unicode text"),
        ('["q", "a"]', "d.jsonl, line 3: expected an object with prompt and answer, not a list"),
        ('{"prompt": "q", "answer": "a", "solution": 7}', "d.jsonl, line 3: solution is a number, expected text"),
        ('{"prompt": "q", "answer": "a", "solution": "\\ud800"}', "d.jsonl, line 3: solution: not Unicode text"),
        ('{"prompt": "q", "answer": "a"', "d.jsonl, line 3: not JSON (Expecting ',' delimiter at column 30)"),
        ("prompt,answer", "d.jsonl, line 3: not JSON"),
        ("[" * 100_000, "d.jsonl, line 3: nested too deep"),
        ('{"prompt": "q", "answer": ' + "1" * 5000 + "}", "d.jsonl, line 3: holds a number with thousands of digits"),
        ("{}", "d.jsonl, line 3: no 'prompt'"),
    ],
)
def test_bad_rows(tmp_path, line, message) -> None:
    path = tmp_path / "d.jsonl"
    good = [json.dumps(row) for row in rows(8)]
    path.write_text("\n".join([*good[:2], line, *good[2:]]))
    with pytest.raises(UserError) as error:
        load_task(str(path), judge="exact")
    assert message in str(error.value)


def test_a_file_that_is_not_utf8(tmp_path) -> None:
    (tmp_path / "d.jsonl").write_bytes(b'{"prompt": "q", "answer": "a"}\n{"prompt": "\xff", "answer": "a"}\n')
    with pytest.raises(UserError, match=r"d\.jsonl, line 2: not UTF-8"):
        load_task(str(tmp_path / "d.jsonl"))


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_an_empty_file(tmp_path, content) -> None:
    (tmp_path / "d.jsonl").write_text(content)
    with pytest.raises(UserError, match=r"d\.jsonl: the dataset is empty"):
        load_task(str(tmp_path / "d.jsonl"))


def test_too_few_rows_to_hold_some_out(tmp_path) -> None:
    with pytest.raises(UserError, match="3 rows with 3 different prompts are too few to hold a quarter out"):
        load_task(write(tmp_path / "d.jsonl", rows(3)))
    with pytest.raises(UserError, match="40 rows with 1 different prompts are too few"):
        load_task(write(tmp_path / "d.jsonl", rows(1) * 40))


def test_bad_parquet(tmp_path) -> None:
    path = tmp_path / "d.parquet"
    path.write_bytes(b"not parquet at all")
    with pytest.raises(UserError, match=r"d\.parquet: not a readable Parquet file"):
        load_task(str(path))
    pyarrow.parquet.write_table(pyarrow.table({"asked": ["q"], "answer": ["a"]}), path)
    with pytest.raises(UserError, match=r"d\.parquet: no column holds the prompt; its columns are asked, answer"):
        load_task(str(path))
    pyarrow.parquet.write_table(pyarrow.table({"prompt": ["p", "q"], "answer": ["a", None]}), path)
    with pytest.raises(UserError, match=r"d\.parquet, row 2: no 'answer'"):
        load_task(str(path))
    pyarrow.parquet.write_table(pyarrow.table({"prompt": pyarrow.array([], "string"), "answer": []}), path)
    with pytest.raises(UserError, match=r"d\.parquet: the dataset is empty"):
        load_task(str(path))


def test_files_that_are_not_there_or_of_another_kind(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data.txt").write_text("prompt,answer\n")
    for spec, message in {
        "none.jsonl": "there is no file 'none.jsonl'",
        "no/such/folder/none.parquet": "there is no file",
        "data.txt": r"data\.txt: expected a file of rows, whose name ends in \.jsonl",
        "./data.txt": r"data\.txt: expected a file of rows, whose name ends in \.jsonl",
        "a/b/c": "no id of a dataset on the hub",
        "none.csv": "there is no file 'none.csv'",
        "none/*.csv": "no file is called like 'none/",
        "none.txt": "no task is called 'none.txt'",
    }.items():
        with pytest.raises(UserError, match=message):
            load_task(spec)


# The hub. A folder of the current directory is loaded by the same call as a dataset on the hub.


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Path:
    import datasets

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "owner" / "questions"
    folder.mkdir(parents=True)
    return folder


def test_a_dataset_by_its_id(hub) -> None:
    write(hub / "train.jsonl", rows(20))
    task: Task = load_task("owner/questions", judge="number")
    assert task.name == "owner/questions"
    assert (len(task.train), len(task.heldout)) == (15, 5)
    assert {e.id for e in [*task.train, *task.heldout]} == {f"owner/questions:{i}" for i in range(1, 21)}


def test_a_dataset_without_the_columns(hub) -> None:
    write(hub / "train.jsonl", [{"asked": "q", "answer": "a"}])
    with pytest.raises(UserError, match="owner/questions: no column holds the prompt; its columns are asked, answer"):
        load_task("owner/questions")


def test_a_bad_row_of_a_dataset_is_named(hub) -> None:
    write(hub / "train.jsonl", [*rows(3), {"prompt": "q", "answer": None}])
    with pytest.raises(UserError, match="owner/questions, row 4: no 'answer'"):
        load_task("owner/questions")


def test_a_dataset_that_cannot_be_loaded(monkeypatch) -> None:
    import datasets

    def offline(*args: Any, **kwargs: Any) -> None:
        assert args == ("owner/name", "main")
        assert kwargs == {"split": "train"}
        raise ConnectionError("no route to the hub\nand more lines")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(UserError) as error:
        load_task("owner/name:main")
    assert str(error.value) == "the dataset 'owner/name:main' could not be loaded from the hub: no route to the hub"


@given(st.integers() | st.floats(allow_nan=False, allow_infinity=False))
def test_number_answers_survive(number) -> None:
    from policyopt.data.examples import _answer

    assert math.isclose(float(_answer("here", number)), number)
