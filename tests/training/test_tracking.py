"""Trackers: what they get, once and in order, and that none of them can hurt a run."""

from __future__ import annotations

import importlib.util
import json
import os
import sqlite3
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import policyopt
from policyopt.errors import UserError
from policyopt.training.config import Evaluation, Tracking, TrainConfig
from policyopt.training.run import run
from policyopt.training.tracking import TRACKERS, TrackedRun, Trackers, need_trackers, numbers, tracked_id
from tests.runs import lines, power_cut, tiny_run
from tests.tiny import write_task

OWN = '''
import json

class Lines:
    """Writes what it gets beside the run."""

    def __init__(self, run):
        self.file = (run.folder.parent / "tracked.txt").open("a")
        self.say("start", run.project, run.name, run.id, run.config["steps"])

    def say(self, *what):
        print(json.dumps(what), file=self.file, flush=True)

    def log(self, step, values):
        self.say("log", step, values)

    def finish(self, summary):
        self.say("finish", summary.get("steps"))


class Broken(Lines):
    def log(self, step, values):
        if step == 1:
            raise SystemExit("quota exceeded\\nand more")
        super().log(step, values)


def impossible(run):
    raise OSError("no network")
'''


@pytest.fixture
def own(tmp_path: Path) -> str:
    (tmp_path / "mine.py").write_text(OWN)
    return str(tmp_path / "mine.py")


@pytest.fixture
def make(tmp_path: Path, tiny_model: Path) -> Callable[..., TrainConfig]:
    task = write_task(tmp_path / "task")

    def of(**changes: Any) -> TrainConfig:
        short = {"steps": 4, "eval": Evaluation(every=2, prompts=2, samples=0)}
        return tiny_run(tmp_path / "run", tiny_model, task, **(short | changes))

    return of


def tracked(folder: Path) -> list[list[Any]]:
    return lines(folder / "tracked.txt")  # type: ignore[return-value]


def test_a_tracker_of_ones_own_gets_every_step_with_the_numbers_of_the_log(
    make: Callable[..., TrainConfig], own: str, tmp_path: Path
) -> None:
    run(make(track=f"{own}:Lines", tracking=Tracking(project="sums")), quiet=True)
    start, *logged, end = tracked(tmp_path)
    assert start[:3] == ["start", "sums", "run"]
    assert start[4:] == [4]
    assert end == ["finish", 4]
    written = lines(tmp_path / "run" / "metrics.jsonl")
    assert [(step, values) for _, step, values in logged] == [
        (row["step"], {k: v for k, v in row.items() if k != "step" and v is not None}) for row in written
    ]


def test_a_resumed_run_goes_on_with_its_tracker_and_sends_no_step_twice(
    make: Callable[..., TrainConfig], own: str, tmp_path: Path
) -> None:
    config = make(track=f"{own}:Lines")
    with power_cut(after=3):  # one step after the checkpoint
        run(config, quiet=True)
    run(config, resume=config.out, quiet=True)
    said = tracked(tmp_path)
    starts = [row for row in said if row[0] == "start"]
    assert len(starts) == 2
    assert starts[0] == starts[1]
    assert [row[1] for row in said if row[0] == "log"] == [0, 1, 2, 3, 4]
    assert [row for row in said if row[0] == "finish"] == [["finish", None], ["finish", 4]]


def test_a_tracker_that_fails_is_told_of_once_and_ends_nothing(
    make: Callable[..., TrainConfig], own: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = run(make(track=[f"{own}:impossible", f"{own}:Broken", f"{own}:Lines"], steps=2)).summary
    assert summary["stopped"] == "finished"
    said = capsys.readouterr().out
    assert said.count("impossible failed (no network): the run goes on without it") == 1
    assert said.count("Broken failed (quota exceeded): the run goes on without it") == 1
    assert [row[1] for row in tracked(tmp_path) if row[0] == "log"] == [0, 0, 1, 2]


def test_the_names_of_trackers_may_be_parted_by_commas(make: Callable[..., TrainConfig]) -> None:
    assert make(track="wandb,trackio").track == ("wandb", "trackio")
    assert make(track=["wandb,trackio", "my.py:own"]).track == ("wandb", "trackio", "my.py:own")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("wnadb", "--track wnadb: no tracker is called so; nearest: wandb"),
        ("missing.py:x", "there is no file missing.py"),
        ("my.py", "one of your own is my.py:NAME"),
    ],
)
def test_what_is_no_tracker_is_refused_before_anything_is_made(
    name: str, words: str, make: Callable[..., TrainConfig]
) -> None:
    config = make(track=name)
    with pytest.raises(UserError) as refused:
        run(config, quiet=True)
    assert words in str(refused.value)
    assert config.out is not None
    assert not config.out.exists()


def test_a_tracker_whose_package_is_missing_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'policyopt\[wandb\]'"):
        need_trackers(["wandb"])


def test_the_id_of_a_run_goes_with_its_folder(tmp_path: Path) -> None:
    first = tmp_path / "first"
    first.mkdir()
    made = tracked_id(first)
    first.rename(tmp_path / "second")
    assert tracked_id(tmp_path / "second") == made
    (tmp_path / "second" / "tracking.json").write_text("{")
    assert tracked_id(tmp_path / "second") != made


def test_numbers_in_numbers() -> None:
    found = {"a": 1, "b": {"c": 0.5, "d": "text", "e": [1, 2]}, "f": None, "g": True}
    assert numbers(found) == {"a": 1, "b/c": 0.5}


# The services, without a network -------------------------------------------------------------------------------------


ALONE = """
import sys
from pathlib import Path
from policyopt.training.tracking import TrackedRun, Trackers

what = TrackedRun("sums", "grpo-sums", "0123456789abcdef", {"steps": 3}, Path(sys.argv[1]))
with Trackers(["trackio"], what, print) as trackers:
    for step in map(int, sys.argv[2:]):
        trackers.log(step, {"reward/mean": float(step)})
"""


def test_wandb_keeps_a_run_offline_under_its_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="needs wandb (pip install 'policyopt[wandb]')")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path))
    said: list[str] = []
    what = TrackedRun("sums", "grpo-sums", "0123456789abcdef", {"recipe": {"name": "grpo"}}, tmp_path)
    with Trackers(["wandb"], what, said.append) as trackers:
        trackers.log(0, {"reward/mean": 0.25, "kl/ref": None})
        trackers.log(1, {"reward/mean": 0.75})
        trackers.summary = {"after": {"accuracy": 0.5}}
    (folder,) = (tmp_path / "wandb").glob("offline-run-*-0123456789abcdef")
    assert said == [f"wandb: offline, wandb sync {folder}"]
    (record,) = folder.glob("*.wandb")
    late = time.monotonic() + 10  # wandb's own process writes the file, on a busy machine after the run has ended
    while b"after/accuracy" not in (content := record.read_bytes()) and time.monotonic() < late:
        time.sleep(0.05)
    assert b"reward/mean" in content
    assert b"after/accuracy" in content
    assert b"sums" in content


def test_trackio_continues_a_run_of_its_project(tmp_path: Path) -> None:
    """In processes of their own: trackio reads where it keeps things when it is imported."""
    pytest.importorskip("trackio", reason="needs trackio (pip install 'policyopt[trackio]')")
    env = {**os.environ, "TRACKIO_DIR": str(tmp_path / "trackio"), "HF_HUB_OFFLINE": "1"}
    for steps in (["0", "1"], ["2"]):
        done = subprocess.run(
            [sys.executable, "-c", ALONE, str(tmp_path), *steps], env=env, capture_output=True, text=True, timeout=120
        )
        assert done.stdout == "trackio: trackio show --project sums\n", done.stderr
    with sqlite3.connect(tmp_path / "trackio" / "sums.db") as base:
        rows = base.execute("select run_name, step, metrics from metrics order by step").fetchall()
    assert [(name, step) for name, step, _ in rows] == [("grpo-sums-012345", step) for step in (0, 1, 2)]
    assert [json.loads(text)["reward/mean"] for *_, text in rows] == [0.0, 1.0, 2.0]


def test_every_tracker_by_name_is_an_extra() -> None:
    project = Path(policyopt.__file__).parents[1] / "pyproject.toml"
    assert TRACKERS.keys() <= tomllib.loads(project.read_text())["project"]["optional-dependencies"].keys()
