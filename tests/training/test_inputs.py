"""A resumed run sees that its rows, its code or its model are not what they were."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from policyopt.data import load_task
from policyopt.errors import UserError
from policyopt.items import Example, JudgeSpec, Task, user
from policyopt.training import inputs
from policyopt.training.inputs import FILE, inputs_of
from policyopt.training.run import run
from tests.runs import lines, tiny_run
from tests.tiny import save_tiny_model, write_task

ROWS = tuple(Example(f"d.jsonl:{i}", user(f"{i}?"), str(i), meta={"level": i}) for i in range(1, 13))


def task(rows: tuple[Example, ...] = ROWS, judge: str = "exact") -> Task:
    return Task("d.jsonl", rows[:8], rows[8:], JudgeSpec(judge), 8)


def seen(tmp_path: Path, now: Task, judge: str | None = None) -> inputs.Inputs:
    config = tiny_run(tmp_path / "run", tmp_path / "model", {"task": "d.jsonl"}, judge=judge)
    return inputs_of(config, now, {"policy": str(tmp_path / "model"), "teacher": "no/such-model"})


def changed(rows: tuple[Example, ...], at: int, **fields: Any) -> tuple[Example, ...]:
    return (*rows[:at], dataclasses.replace(rows[at], **fields), *rows[at + 1 :])


@pytest.mark.parametrize("fields", [{"answer": "x"}, {"prompt": user("x")}, {"solution": "x"}, {"meta": {"level": 0}}])
def test_a_row_that_has_changed_is_named(fields: dict[str, Any], tmp_path: Path) -> None:
    old = seen(tmp_path, task())
    assert old.changes(seen(tmp_path, task())) == []
    now = changed(changed(ROWS, 10, **fields), 8, **fields)
    said = "d.jsonl has changed since the run began: 12 rows, 2 differ (first: d.jsonl:9)"
    assert old.changes(seen(tmp_path, task(now))) == [said]
    (fewer,) = old.changes(seen(tmp_path, task(ROWS[:11])))
    assert "11 rows, 1 differ (first: d.jsonl:12)" in fewer


def test_questions_that_are_made_when_asked_for_are_sampled(tmp_path: Path) -> None:
    old, again, other = (seen(tmp_path, load_task("chain_sum", seed=s, heldout=4)) for s in (0, 0, 1))
    assert len(old.rows) == 64 + 4
    assert old.changes(again) == []
    assert old.changes(other)


def test_code_is_followed_to_what_it_imports_from_beside_it(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("import json, helper\nfrom pack import inner\ndef score(p, r, a): return 1\n")
    (tmp_path / "helper.py").write_text("import mine\n")
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "__init__.py").write_text("")
    (tmp_path / "unused.py").write_text("")
    name = f"{tmp_path / 'mine.py'}:score"
    old = seen(tmp_path, task(judge=name), name)
    assert sorted(Path(p).name for p in old.code) == ["__init__.py", "helper.py", "mine.py"]
    (tmp_path / "helper.py").write_text("import mine \n")
    (tmp_path / "unused.py").write_text("1")
    assert old.changes(seen(tmp_path, task(judge=name))) == [
        f"{tmp_path / 'helper.py'} has changed since the run began"
    ]


def test_a_model_is_read_whole_or_where_it_is_large_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_tiny_model(tmp_path / "model")
    old = seen(tmp_path, task())
    (tmp_path / "model" / "README.md").write_text("new")
    assert old.changes(seen(tmp_path, task())) == []
    save_tiny_model(tmp_path / "model", seed=1)
    assert old.changes(seen(tmp_path, task())) == ["the model has changed since the run began (model.safetensors)"]
    large = tmp_path / "large"
    large.write_bytes(bytes(100_000))
    monkeypatch.setattr(inputs, "WHOLE", 1000)
    monkeypatch.setattr(inputs, "BLOCK", 100)
    before = inputs._file(large)
    for place in (0, 99_999):
        data = bytearray(100_000)
        data[place] = 1
        large.write_bytes(data)
        assert inputs._file(large) != before
    large.write_bytes(bytes(100_001))
    assert inputs._file(large) != before


def test_a_resumed_run_refuses_what_changed_unless_told(tmp_path: Path, tiny_model: Path) -> None:
    given = write_task(tmp_path / "task")
    config = tiny_run(tmp_path / "run", tiny_model, given, steps=1)
    assert config.out is not None
    run(config, quiet=True)
    data, judge = tmp_path / "task" / "data.jsonl", tmp_path / "task" / "judge.py"
    data.write_text(data.read_text().replace('"answer": "3"', '"answer": "4"'))
    judge.write_text(judge.read_text() + "\n")
    longer = dataclasses.replace(config, steps=2)
    log = (config.out / "metrics.jsonl").read_text()
    with pytest.raises(
        UserError, match=r"24 rows, 1 differ \(first: data.jsonl:4\); .*judge.py has changed.*--accept-changes"
    ):
        run(longer, resume=config.out, quiet=True)
    assert (config.out / "metrics.jsonl").read_text() == log, "nothing was touched"
    run(longer, resume=config.out, accept_changes=True, quiet=True)
    run(dataclasses.replace(config, steps=3), resume=config.out, quiet=True)
    assert len(lines(config.out / "metrics.jsonl")) == 4
    (config.out / FILE).write_text(json.dumps({"rows": 3}))
    with pytest.raises(UserError, match=r"inputs.json: not what a run writes"):
        run(longer, resume=config.out, quiet=True)


def test_a_model_in_one_file_is_looked_at(tmp_path: Path) -> None:
    config = tiny_run(tmp_path / "run", tmp_path / "model", {"task": "d.jsonl"})
    file = tmp_path / "tiny.gguf"
    file.write_bytes(b"GGUF one")
    old = inputs_of(config, task(), {"policy": str(file)})
    assert old.changes(inputs_of(config, task(), {"policy": str(file)})) == []
    file.write_bytes(b"GGUF two")
    now = inputs_of(config, task(), {"policy": str(file)})
    assert old.changes(now) == ["the model has changed since the run began (tiny.gguf)"]
