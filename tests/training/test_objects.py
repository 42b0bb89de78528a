"""Runs on what a Python session holds: loaded models, rows, functions; a hook on every step; and runs read back."""

from __future__ import annotations

import dataclasses
import inspect
import json
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pyarrow
import pytest
import torch

import policyopt as po
from policyopt.data.places import written
from policyopt.errors import UserError
from policyopt.models.load import Policy, load_policy
from policyopt.training.config import TrainConfig, config_from_yaml
from policyopt.training.result import Result
from policyopt.training.settings import Settings
from tests.tiny import load_tiny

ROWS = [{"question": f"{i}+1", "gold": i + 1, "hard": i % 2} for i in range(24)]
QUICK: dict[str, Any] = {
    "steps": 2, "batch": 8, "max_tokens": 8, "eval": {"prompts": 3, "samples": 0}, "columns": {"answer": "gold"},
    "optim": {"lr": 1e-2}, "device": "cpu", "quiet": True,
}  # fmt: skip


def judge_of_a_session() -> Callable[..., float]:
    """It has no name that a worker could import, and so it is sent."""

    def length(response: str, hard: int) -> float:
        return len(response) + 100 * hard

    return length


length = judge_of_a_session()


@pytest.fixture(scope="module")
def policy(tiny_model: Path) -> Policy:
    return load_tiny(tiny_model, "float32")


@pytest.fixture
def trained(policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Result:
    monkeypatch.chdir(tmp_path)
    return po.train("rloo", model=policy, task=ROWS, judge=length, **QUICK)


def weights(policy: Policy) -> dict[str, torch.Tensor]:
    return {name: x.clone() for name, x in policy.model.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_objects_train_as_their_files_do(
    policy: Policy, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = weights(policy)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    objects = po.train("rloo", model=(policy.model, policy.tokenizer), task=ROWS, judge=length, **QUICK)
    names = po.train("rloo", model=tiny_model, task="rows.jsonl", judge=length, **QUICK)
    assert same(weights(objects.policy), weights(names.policy))
    assert not same(weights(objects.policy), before)
    assert same(weights(policy), before), "what was given stays as it was"
    assert objects.out == Path("runs/rloo-rows-seed0")
    held = load_policy(str(objects.out / "model"), device="cpu")
    assert same(weights(held), weights(objects.policy))


@pytest.mark.parametrize(
    "rows",
    [pd.DataFrame(ROWS), datasets.Dataset.from_list(ROWS), pyarrow.Table.from_pylist(ROWS), tuple(ROWS)],
    ids=type,
)
def test_tables_hold_the_same_rows_as_a_list(rows: Any) -> None:
    expected = po.load_task(ROWS, columns={"answer": "gold"})
    found = po.load_task(rows, columns="answer=gold")
    assert found.train == expected.train and found.heldout == expected.heldout
    assert found.train[0].meta == {"question": "0+1", "gold": 1, "hard": 0}


def test_rows_to_measure_on() -> None:
    task = po.load_task(ROWS[4:], eval_task=pd.DataFrame(ROWS[:4]), columns="answer=gold")
    assert len(task.train) == 20
    assert [e.id for e in task.heldout] == [f"<held-out rows of a Python session>:{i}" for i in range(1, 5)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"task": [{"prompt": "1+1", "answer": "2"}, {"prompt": "2"}]}, "<rows of a Python session>, row 2: no 'answer'"),
        ({"task": []}, "<rows of a Python session>: the dataset is empty"),
        ({"task": [{1: "a"}]}, "<rows of a Python session>, row 1: expected names of columns as text, not 1"),
        ({"task": pd.DataFrame({"prompt": ["a", 1]})}, "a column holds values of several kinds"),
        ({"task": datasets.DatasetDict(a=datasets.Dataset.from_list(ROWS))}, "task is several datasets (a): give one"),
        ({"model": torch.nn.Linear(1, 1)}, "model: a model needs its tokenizer: give both, (model, tokenizer)"),
        ({"model": ("a", "b")}, "model: expected a pair (model, tokenizer), not ('str', 'str')"),
    ],
)  # fmt: skip
def test_objects_that_are_none(
    settings: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        po.train("grpo", **{"quiet": True, **settings})
    assert message in str(caught.value)
    assert list(tmp_path.iterdir()) == []


# Going on ------------------------------------------------------------------------------------------------------------


def test_resume_asks_again_for_what_was_an_object(trained: Result, policy: Policy) -> None:
    config = trained.config
    assert (config["model"], config["task"]) == (
        "<model Qwen3ForCausalLM of a Python session>",
        "<rows of a Python session>",
    )
    assert config_from_yaml(trained.out / "config.yaml").to_dict() == {
        k: v for k, v in config.items() if k != "resolved"
    }
    given: dict[str, Any] = {}
    for argument, thing in {"model": policy, "task": ROWS}.items():
        with pytest.raises(
            UserError, match=f"^{argument} is <.* which is not here: give it again, in Python, as {argument}="
        ):
            po.train(resume=trained.out, steps=3, quiet=True, **given)
        given[argument] = thing
    again = po.train(resume=trained.out, steps=3, quiet=True, eval={"samples": 0}, judge=length, **given)
    assert again.summary["steps"] == 3
    assert again.config["eval"] == {**config["eval"], "samples": 0}, "what is left out of a group is as it was"


def test_resume_sees_that_an_object_is_another(trained: Result, policy: Policy) -> None:
    assert not same(weights(trained.policy), weights(policy))
    with pytest.raises(UserError, match="the model has changed since the run began \\(weights\\)"):
        po.train(resume=trained.out, steps=3, model=trained.policy, task=ROWS, judge=length, quiet=True)
    other = [*ROWS[:-1], {**ROWS[-1], "gold": 7}]
    with pytest.raises(UserError, match=r"24 rows, 1 differ \(first: <rows of a Python session>:24\)"):
        po.train(resume=trained.out, steps=3, model=policy, task=other, judge=length, quiet=True)


def test_nothing_to_train_with() -> None:
    with pytest.raises(UserError, match="train takes a recipe or the name of a method"):
        po.train(quiet=True)


# Every step ----------------------------------------------------------------------------------------------------------


def test_on_step_sees_the_log_and_ends_the_run(policy: Policy, tmp_path: Path) -> None:
    seen: list[dict[str, float]] = []

    def hook(metrics: Any) -> bool | None:
        seen.append(dict(metrics))
        return False if metrics["step"] == 3 else None

    settings = QUICK | {"steps": 9, "eval": {"every": 2, "prompts": 3, "samples": 0}}
    result = po.train("rloo", model=policy, task=ROWS, judge=length, out=tmp_path / "run", on_step=hook, **settings)
    assert [m["step"] for m in seen] == [1, 2, 3]
    assert "eval/accuracy" in seen[1]
    assert [m["reward/mean"] for m in seen] == result.metrics["reward/mean"].dropna().tolist()
    assert (result.summary["stopped"], result.summary["steps"]) == ("on_step returned False", 3)
    assert (result.out / "checkpoints" / "step-000003").is_dir()


def test_what_on_step_raises_ends_the_run(policy: Policy, tmp_path: Path) -> None:
    def broken(metrics: Any) -> None:
        raise ZeroDivisionError("mine")

    out = tmp_path / "run"
    with pytest.raises(ZeroDivisionError, match="mine"):
        po.train("rloo", model=policy, task=ROWS, judge=length, out=out, on_step=broken, **QUICK)
    half = po.load_run(out)
    assert repr(half) == f"Result({out}, not ended, 1 steps)"
    assert half.summary == {} and len(half.metrics) == 2 and "not ended" in half._repr_html_()
    with pytest.raises(UserError, match="the run has not ended, so that there is no model yet"):
        _ = half.policy
    assert half.report.is_file()


# Reading -------------------------------------------------------------------------------------------------------------


def test_a_run_is_read_back(trained: Result) -> None:
    found = po.load_run(trained.out)
    assert found.summary == trained.summary != {}
    assert list(found.metrics.index) == [0, 1, 2]
    assert found.metrics["reward/mean"][2] == found.plot("reward/mean").charts[0].series[0].y[-1]
    assert set(found.samples["phase"]) == {"before", "train", "after"}
    assert "finished after 2 steps" in repr(found) and "accuracy" in repr(found) and len(repr(found)) < 150
    assert same(weights(found.policy), weights(trained.policy))
    shown = found._repr_html_()
    assert shown.count("<polyline") >= 6 and "&lt;rows of a Python session&gt;" in shown and "<rows" not in shown
    titles = [c.title for c in found.plot().charts]
    assert {"Accuracy", "Reward", "Entropy"} <= {*titles}
    drawn = found.plot().save("curves.svg").read_text()
    assert all(f">{title}</text>" in drawn for title in titles) and "nan" not in drawn
    with pytest.raises(UserError, match="no such metric; nearest: reward/mean"):
        found.plot("reward/men")
    with pytest.raises(UserError, match=r"name the file curves\.svg"):
        found.plot().save("curves.png")
    with pytest.raises(UserError, match="no run lies there"):
        po.load_run("elsewhere")


def test_measuring_objects(policy: Policy) -> None:
    settings: dict[str, Any] = {"judge": length, "columns": {"answer": "gold"}, "max_tokens": 8, "device": "cpu"}
    scores = po.evaluate(policy, ROWS, prompts=3, samples=0, prompting={"system": "Sum."}, **settings)
    assert len(scores.records) == 3 and all(
        record["score"] % 100 == len(record["response"]) for record in scores.records
    )
    assert repr(scores).startswith("Scores(accuracy ") and repr(scores).endswith(", n 3)")
    [found] = po.sample((policy.model, policy.tokenizer), ROWS, questions=1, **settings)
    assert found["responses"][0]["score"] % 100 == len(found["responses"][0]["response"])


# Types ---------------------------------------------------------------------------------------------------------------


def test_settings_are_the_fields_of_the_configuration() -> None:
    fields = {f.name: f for f in dataclasses.fields(TrainConfig) if f.name != "recipe"}
    shown = inspect.signature(po.train).parameters
    assert list(Settings.__annotations__) == list(fields) == list(shown)[6:]
    taken, held = typing.get_type_hints(Settings), typing.get_type_hints(TrainConfig)
    for name, field in fields.items():
        if field.default is not dataclasses.MISSING:
            assert shown[name].default == field.default
        accepted = {typing.get_origin(t) or t for t in (typing.get_args(taken[name]) or [taken[name]])}
        wanted = {typing.get_origin(t) or t for t in (typing.get_args(held[name]) or [held[name]])}
        if name not in ("task", "eval_task", "judge", "judge_options", "roles", "track"):
            assert wanted <= accepted, name


def test_names_stay_names() -> None:
    for spec in ("chain_sum", "a.jsonl*2+b.jsonl", None):
        assert written(spec) is spec
    assert written(["a.jsonl", Path("b.jsonl")]) == "a.jsonl+b.jsonl"


def test_every_name_at_the_top_is_there() -> None:
    assert all(getattr(po, name) is not None for name in po.__all__)
    assert po.UserError is UserError and po.Result is Result
