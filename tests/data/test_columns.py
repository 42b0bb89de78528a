"""Which column is what: every layout that people have, what a user says, and what is refused because it could be several."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from policyopt.data.columns import TARGETS, find_layout, parse_columns, reach
from policyopt.data.dataset import load_dataset_task
from policyopt.errors import UserError
from policyopt.items import Example, Task


def write(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def loaded(folder: Path, row: dict[str, Any], columns: str | None = None) -> tuple[Example, Task]:
    """A task of eight rows of one kind, ``#`` standing for a number of each row, and its first row."""
    rows = [json.loads(json.dumps(row).replace("#", str(i))) for i in range(8)]
    task = load_dataset_task(write(folder / "d.jsonl", rows), columns=columns, judge=None, options=None, heldout=2)
    return min([*task.train, *task.heldout], key=lambda e: int(e.id.split(":")[1])), task


def chat(*turns: str) -> list[dict[str, str]]:
    return [{"role": role, "content": text} for role, text in zip(("user", "assistant", "user", "assistant"), turns)]


def said(example: Example) -> list[str]:
    return [m["content"] for m in example.prompt]


VERL = {
    "data_source": "openai/gsm8k", "prompt": chat("#+#?"), "ability": "math",
    "reward_model": {"ground_truth": "4#", "style": "rule"}, "extra_info": {"index": 1, "split": "train"},
}  # fmt: skip

LAYOUTS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"prompt": "#?", "answer": "4"}, {"prompt": ["0?"], "answer": "4"}),
    ({"question": "#?", "answer": 4}, {"prompt": ["0?"], "answer": "4"}),
    ({"query": "#?", "ground_truth": "4"}, {"prompt": ["0?"], "answer": "4"}),
    ({"problem": "#?", "solution": "so 4", "answer": "4"}, {"prompt": ["0?"], "answer": "4", "solution": "so 4"}),
    ({"problem": "#?", "solution": "so 4"}, {"prompt": ["0?"], "answer": "so 4", "solution": "so 4"}),
    # NuminaMath: the chat says what problem and solution say
    ({"problem": "#?", "solution": "so 4", "messages": chat("#?", "so 4")}, {"prompt": ["0?"], "answer": "so 4"}),
    ({"messages": chat("#?"), "ground_truth": "4"}, {"prompt": ["0?"], "answer": "4", "completion": None}),
    ({"messages": chat("#?", "so 4"), "answer": "4"}, {"prompt": ["0?"], "answer": "4", "completion": None}),
    ({"messages": chat("#?", "b", "c", "d")}, {"prompt": ["0?", "b", "c"], "answer": "", "completion": "d"}),
    (
        {"conversations": [{"from": "human", "value": "#?"}, {"from": "gpt", "value": "b"}]},
        {"prompt": ["0?"], "completion": "b"},
    ),
    (VERL, {"prompt": ["0+0?"], "answer": "40"}),
    ({"prompt": "#?", "completion": "b"}, {"prompt": ["0?"], "completion": "b", "answer": ""}),
    (
        {"prompt": chat("#?"), "completion": [{"role": "assistant", "content": "b"}]},
        {"completion": "b"},
    ),
    ({"instruction": "do #", "input": "", "output": "b"}, {"prompt": ["do 0"], "completion": "b"}),
    ({"instruction": "do #", "input": "this", "output": "b"}, {"prompt": ["do 0\n\nthis"], "completion": "b"}),
    ({"instruction": "do #", "context": "this", "response": "b"}, {"prompt": ["do 0\n\nthis"], "completion": "b"}),
    ({"prompt": "#?", "chosen": "b", "rejected": "c"}, {"prompt": ["0?"], "chosen": "b", "rejected": "c"}),
    # the prompt once more in each of the pair
    (
        {"prompt": "#?", "chosen": chat("#?", "b"), "rejected": chat("#?", "c"), "messages": chat("#?", "b")},
        {"prompt": ["0?"], "chosen": "b", "rejected": "c", "completion": None},
    ),
    (
        {"chosen": chat("#?", "x", "y", "b"), "rejected": chat("#?", "x", "y", "c")},
        {"prompt": ["0?", "x", "y"], "chosen": "b", "rejected": "c"},
    ),
    (
        {"prompt": "#?", "completion": "b", "label": False},
        {"completion": "b", "labelled": "b", "label": False, "meta": {"label": False}},
    ),
    ({"prompt": "#?", "response": "b", "label": 1}, {"labelled": "b", "label": True}),
    ({"prompt": "#?", "completion": "b", "label": "False"}, {"labelled": "b", "label": False}),
    ({"messages": chat("#?", "b"), "label": 0}, {"prompt": ["0?"], "labelled": "b", "label": False}),
    # What a judged response is compared with, and a class that has nothing to do with texts
    ({"prompt": "#?", "answer": "4", "label": "math"}, {"labelled": None, "label": None, "meta": {"label": "math"}}),
    ({"messages": chat("#?", "b"), "answer": "4", "label": "math"}, {"labelled": None, "meta": {"label": "math"}}),
    (
        {"prompt": "#?", "responses": ["b", "c", "d"], "scores": [1, 0.5, -2]},
        {"responses": ("b", "c", "d"), "scores": (1.0, 0.5, -2.0), "completion": None},
    ),
    ({"prompt": "#?", "completions": ["b", "c"], "scores": [1, 2]}, {"responses": ("b", "c"), "scores": (1.0, 2.0)}),
    ({"prompt": "#?", "responses": '["b", "c"]', "scores": "[1, 2]"}, {"responses": ("b", "c"), "scores": (1.0, 2.0)}),
    (
        {"prompt": chat("#?"), "responses": [chat("#?", "b"), [chat("", "c")[1]]], "scores": [1, 2]},
        {"responses": ("b", "c")},
    ),
    ({"prompt": "#?", "answer": "4", "responses": ["b", "c"]}, {"responses": (), "meta": {"responses": ["b", "c"]}}),
    (
        {"prompt": "#?", "chosen": "b", "rejected": "c", "completion": "d", "chosen_score": 8.5, "rejected_score": "3"},
        {"chosen": "b", "rejected": "c", "completion": "d", "numbers": {"chosen_score": 8.5, "rejected_score": 3.0}},
    ),
    (
        {"chosen": chat("#?", "b"), "rejected": chat("#?", "c"), "completion": "d"},
        {"prompt": ["0?"], "chosen": "b", "rejected": "c", "completion": "d"},
    ),
    ({"prompt": json.dumps(chat("#?")), "answer": "4"}, {"prompt": ["0?"], "answer": "4"}),
    ({"prompt": [{"role": "user", "content": [{"type": "text", "text": "#?"}]}], "answer": "4"}, {"prompt": ["0?"]}),
    (
        {"system": "Be brief.", "question": "#?", "chosen": "b", "rejected": "c"},
        {"prompt": ["Be brief.", "0?"], "chosen": "b"},
    ),
    ({"system_prompt": "", "question": "#?", "response": "b"}, {"prompt": ["0?"], "completion": "b"}),
    # the very name goes before all others
    ({"prompt": "#?", "question": "other", "answer": "4", "ground_truth": "5"}, {"prompt": ["0?"], "answer": "4"}),
    ({"question": "#?", "answer": "4", "response": "old"}, {"answer": "4", "completion": None}),
]


@pytest.mark.parametrize(("row", "read"), LAYOUTS, ids=[",".join(row) for row, _ in LAYOUTS])
def test_layouts(row: dict[str, Any], read: dict[str, Any], tmp_path: Path) -> None:
    example, _ = loaded(tmp_path, row)
    assert {name: said(example) if name == "prompt" else getattr(example, name) for name in read} == read


def test_what_was_found_is_said(tmp_path: Path) -> None:
    _, task = loaded(tmp_path, {"question": "#?", "answer": "4"})
    assert "columns of d.jsonl: question -> prompt, answer" in task.notes
    assert "rows of d.jsonl: 6 to train on, 2 held out (by a hash of the prompt, up to a quarter)" in task.notes
    _, task = loaded(tmp_path, {"prompt": "#?", "completion": "b", "label": True})
    assert "labels of d.jsonl: 8 good, 0 bad; what learns from completions does not read them" in task.notes


def test_columns_that_the_user_names(tmp_path: Path) -> None:
    row = {"asked": "#?", "gold": {"value": ["no", "4"]}, "answer": "long", "prompt": "not this"}
    example, task = loaded(tmp_path, row, "prompt=asked, answer=gold.value.1")
    assert (said(example), example.answer) == (["0?"], "4")
    assert "columns of d.jsonl: asked -> prompt, gold.value.1 -> answer" in task.notes
    example, _ = loaded(tmp_path, {"prompt": "no", "log": chat("#?", "b")}, "messages=log")
    assert (said(example), example.completion) == (["0?"], "b")
    example, _ = loaded(tmp_path, {"prompt": "#?", "text": "b", "good": True}, "completion=text,label=good")
    assert (example.labelled, example.label) == ("b", True)
    # UltraFeedback: the score stands in the object that holds the response
    rated = [{"response": x, "overall_score": n, "model": "m"} for x, n in (("b", 8.5), ("c", 2))]
    example, _ = loaded(
        tmp_path, {"instruction": "#?", "completions": rated}, "prompt=instruction,responses=completions"
    )
    assert (example.responses, example.scores) == (("b", "c"), (8.5, 2.0))


def test_further_columns_are_kept_for_judges(tmp_path: Path) -> None:
    example, _ = loaded(tmp_path, VERL)
    assert example.meta["data_source"] == "openai/gsm8k"
    assert example.meta["extra_info"] == {"index": 1, "split": "train"}
    assert example.meta["reward_model"]["ground_truth"] == "40"
    assert "prompt" not in example.meta
    row = {"problem": "#?", "solution": "so 4", "answer": "4", "level": 3, "long": "x" * 30_000, "none": None}
    example, task = loaded(tmp_path, row)
    # what a function of TRL calls by the name of a column
    assert example.meta == {"problem": "0?", "solution": "so 4", "level": 3}
    assert "columns that are not kept for judges, in d.jsonl: long" in task.notes


def test_what_a_judge_unpickles_never_comes_from_a_file(tmp_path: Path) -> None:
    example, _ = loaded(tmp_path, {"prompt": "#?", "answer": "4", "entry": "gASV"})
    assert example.meta == {}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"question": "#", "problem": "#", "answer": "4"},
            "question and problem could each be the prompt: say which, ",
        ),
        ({"question": "#", "problem": "#", "answer": "4"}, "--columns prompt=question or --columns prompt=problem"),
        (
            {"prompt": "#", "ground_truth": "4", "final_answer": "4"},
            "--columns answer=ground_truth or --columns answer=fi",
        ),
        (
            {"question": "#", "choices": ["a", "b"], "answer": 1},
            "beside 'question' stands 'choices', which the model would",
        ),
        (
            {"asked": "#", "told": "4"},
            "no column holds the prompt; its columns are asked, told: say which, --columns prompt=",
        ),
        (
            {"question": "#", "told": "4"},
            "no column holds an answer or a text to learn from; its columns are question, told",
        ),
        ({"prompt": "#", "answer": "4", "images": ["x"]}, "line 1: 'images' holds something to see or hear"),
        (
            {"prompt": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}], "answer": "4"},
            "line 1: prompt, message 1: content has a part of the type 'image_url'",
        ),
        (
            {"messages": [{"role": "user", "content": "#"}, {"role": "assistant", "content": "", "tool_calls": [1]}]},
            "line 1: messages, message 2 has role, content, tool_calls, expected role and content",
        ),
        ({"messages": chat("#?")}, "nothing to judge by and nothing to learn from"),
        ({"messages": [{"role": "assistant", "content": "#"}]}, "the assistant alone speaks"),
        ({"prompt": "[{'role': 'user', 'content': '#'}]", "answer": "4"}, "chat messages as Python writes them"),
        (
            {"chosen": "#", "rejected": "c"},
            "line 1: no 'prompt', and chosen is text: expected a prompt, or whole chats",
        ),
        ({"chosen": chat("#", "b"), "rejected": chat("other #", "c")}, "have 0 messages in common"),
        ({"chosen": chat("#", "b"), "rejected": chat("#", "b")}, "are the same chat"),
        ({"chosen": chat("#", "b"), "rejected": chat("#")}, "have 1 messages in common"),
        ({"prompt": "#", "chosen": chat("other", "b"), "rejected": chat("#", "c")}, "one message of the assistant"),
    ],
)
def test_what_is_refused(row: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        loaded(tmp_path, row)
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ("prompt", "expected NAME=COLUMN, not 'prompt'"),
        ("promt=q", "a column cannot be 'promt'; nearest: prompt"),
        ("prompt=q,prompt=r", "prompt stands there twice"),
        ("prompt=q,messages=r", "prompt and messages both hold the question"),
        ("prompt=questoin", "--columns prompt=questoin: d.jsonl has no such column; nearest: question"),
    ],
)
def test_columns_that_cannot_be(columns: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        loaded(tmp_path, {"question": "#?", "answer": "4"}, columns)
    assert message in str(error.value)


def test_a_missing_value_is_named_by_its_column(tmp_path: Path) -> None:
    path = write(tmp_path / "d.jsonl", [{"question": "a", "gold": "1"}, {"question": "b", "gold": None}])
    with pytest.raises(UserError, match=r"d\.jsonl, line 2: no 'gold', which is the answer \(it has question\)"):
        load_dataset_task(path, columns="answer=gold")


def test_every_target_can_be_named_and_dots_reach() -> None:
    for target in TARGETS:
        assert parse_columns(f"{target}=x") == {target: "x"}
    row = {"a.b": 1, "a": {"b": 2, "c": [3, {"d": 4}]}}
    found = [reach(row, x) for x in ("a.b", "a.c.0", "a.c.1.d", "a.c.7", "a.x", "a.b.c", "z")]
    assert found == [1, 3, 4, None, None, None, None]
    assert find_layout(["prompt", "answer"], {}, "d").said() == "prompt, answer"
