"""How sources are named: patterns, weights, splits, held-out rows, and names that need care."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from policyopt.data.dataset import load_dataset_task
from policyopt.data.places import absolute, distinct, halves, hub_id, label, labels, mixture, written
from policyopt.errors import UserError
from policyopt.methods.group.grpo import grpo
from policyopt.training.config import TrainConfig, config_from_yaml


def sums(path: Path, count: int, start: int = 0) -> str:
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(
        "".join(json.dumps({"prompt": f"{i}?", "answer": str(i)}) + "\n" for i in range(start, start + count))
    )
    return str(path)


def test_weights_and_patterns() -> None:
    assert [(s.spec, s.weight) for s in mixture("a.jsonl*2+data/*.csv*0.5+o/n:c@s")] == [
        ("a.jsonl", 2.0), ("data/*.csv", 0.5), ("o/n:c@s", None),
    ]  # fmt: skip
    assert hub_id("o/n:c@train[:10%]") == ("o/n", "c", "train[:10%]")
    assert hub_id("a/b/c") is None and hub_id("plain") is None
    for spec, message in {"a.jsonl*0+b.jsonl": "weight of a.jsonl is 0", "a.jsonl+a.jsonl": "twice"}.items():
        with pytest.raises(UserError, match=message):
            mixture(spec)


def test_a_name_that_is_a_file_is_that_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a+b.jsonl", "a,b.jsonl", "[x].jsonl"):
        sums(Path(name), 8)
        assert load_dataset_task(name).name == name
    assert halves("a,b.jsonl") == ["a,b.jsonl"] and halves("c.jsonl,d.jsonl") == ["c.jsonl", "d.jsonl"]


def test_names_tell_apart() -> None:
    names = distinct(["x/train/d.jsonl", "x/test/d.jsonl", "e.jsonl", "o/n"])
    assert [*names.values()] == ["train/d.jsonl", "test/d.jsonl", "e.jsonl", "o/n"]
    assert [*labels(mixture("x/a.jsonl+b.csv.gz")).values()] == ["a", "b"]
    assert [*labels(mixture("a.jsonl+a.csv")).values()] == ["a.jsonl", "a.csv"]
    assert [*labels(mixture("x/*.csv+y/*.csv+part*.json")).values()] == ["x", "y", "part"]
    named = {"x/a.jsonl*2+o/n:c,t.jsonl": "a+n-c", "chain_sum": "chain_sum", "*.csv": "all", "ties:0.01": "ties-0.01"}
    assert {spec: label(spec) for spec in named} == named


def test_files_of_a_pattern_are_one_source(tmp_path: Path) -> None:
    for i in (2, 0, 1):
        sums(tmp_path / "data" / f"part{i}.jsonl", 4, start=10 * i)
    task = load_dataset_task(f"{tmp_path}/data/*.jsonl")
    every = sorted([*task.train, *task.heldout], key=lambda e: int(e.answer))
    assert [e.id for e in every] == [f"part{i}.jsonl:{n}" for i in range(3) for n in (1, 2, 3, 4)]
    assert {e.source for e in every} == {""} and not task.weights
    assert "columns of part0.jsonl, part1.jsonl, part2.jsonl: prompt, answer" in task.notes


def test_a_mixture(tmp_path: Path) -> None:
    a, b = sums(tmp_path / "a.jsonl", 20), sums(tmp_path / "b.jsonl", 20, start=100)
    task = load_dataset_task(f"{a}*3+{b}")
    assert task.weights == {"a": 3.0, "b": 1.0} and task.name == "a.jsonl+b.jsonl"
    assert "prompts of the mixture: a 75%, b 25%" in task.notes
    assert all((e.source == "a") == (int(e.answer) < 100) for e in [*task.train, *task.heldout])
    assert load_dataset_task(f"{a}+{b}").weights == {}, "every row as often"
    with pytest.raises(UserError, match="a weight is for several sources"):
        load_dataset_task(f"{a}*3")
    with pytest.raises(UserError, match="held-out rows are all measured, so that a weight means nothing"):
        load_dataset_task(a, eval_task=f"{b}*2")


def test_rows_to_measure_on_are_measured_whole(tmp_path: Path) -> None:
    train, one, two = (sums(tmp_path / f"{n}.jsonl", 20, start) for n, start in (("t", 0), ("x", 50), ("y", 90)))
    task = load_dataset_task(train, eval_task=f"{one}+{two}", heldout=5)
    assert (len(task.train), len(task.heldout)) == (20, 40)
    assert [e.source for e in task.heldout] == ["x"] * 20 + ["y"] * 20
    with pytest.raises(UserError, match=r"names held-out rows, and --eval-task"):
        load_dataset_task(f"{train},{one}", eval_task=two)
    with pytest.raises(
        UserError, match=r"x\.jsonl, line 1: this prompt is in the training data too \(t\.jsonl, line 4\)"
    ):
        load_dataset_task(train, eval_task=sums(tmp_path / "x.jsonl", 3, start=3))


def test_to_measure_alone_every_row_counts(tmp_path: Path) -> None:
    path, test = sums(tmp_path / "d.jsonl", 3), sums(tmp_path / "test.jsonl", 5, start=50)
    assert len(load_dataset_task(path, whole=True, heldout=None).heldout) == 3
    assert [e.answer for e in load_dataset_task(f"{path},{test}", whole=True).heldout] == [*map(str, range(50, 55))]
    large = sums(tmp_path / "large.jsonl", 40)
    some, held = (load_dataset_task(large, whole=w, heldout=6).heldout for w in (True, False))
    assert some == held, "so many rows are those that training holds out"


def test_the_same_sources_from_another_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    a, b = sums(Path("a.jsonl"), 4), sums(Path("b.csv"), 4)
    config = TrainConfig(recipe=grpo(), task=[f"{a}*2", b], eval_task="*.jsonl", columns={"prompt": "q"})
    assert config.task == f"{tmp_path}/a.jsonl*2+{tmp_path}/b.csv" == absolute(f"{a}*2+{b}")
    assert config.eval_task == f"{tmp_path}/*.jsonl" and config.columns == "prompt=q"
    assert [absolute(x) for x in ("chain_sum", "o/n:c@s", "diverse:a.jsonl")] == [
        "chain_sum",
        "o/n:c@s",
        "diverse:a.jsonl",
    ]
    assert written({"a.jsonl": 2, "b.csv": 1}) == "a.jsonl*2+b.csv*1"
    Path("c.yaml").write_text("task: [a.jsonl*2, b.csv]\ncolumns: {prompt: q}\n")
    read = config_from_yaml(Path("c.yaml"), TrainConfig(recipe=grpo()))
    assert (read.task, read.columns) == (config.task, "prompt=q")
    Path("d.yaml").write_text(read.to_yaml())
    assert config_from_yaml(Path("d.yaml")) == read
