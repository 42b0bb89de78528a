"""The folder of a run belongs to one process at a time, and to nobody who has died."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from policyopt.errors import UserError
from policyopt.training.folder import HOLDER, locked
from policyopt.training.run import run
from tests.runs import PROCESSES, finish, hear, nth, start, tiny_run
from tests.tiny import write_task


def hold(folder: Path, said: Any) -> None:
    with locked(folder, "--out"):
        said.send("held")
        time.sleep(120)


def test_a_second_process_is_refused_by_name_and_a_dead_one_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").touch()
    heard, said = PROCESSES.Pipe(duplex=False)
    process = PROCESSES.Process(target=hold, args=(tmp_path, said))
    process.start()
    assert heard.recv() == "held"
    with pytest.raises(
        UserError, match=rf"--resume .*: a run is going on there \(process {process.pid} on .*, since 20"
    ):
        with locked(tmp_path, "--resume"):
            pass
    process.kill()
    process.join()
    assert (tmp_path / HOLDER).exists(), "it could not clear up"
    with locked(tmp_path, "--resume"):
        assert json.loads((tmp_path / HOLDER).read_text())["pid"] == os.getpid()
        with pytest.raises(UserError, match=f"process {os.getpid()} "):
            with locked(tmp_path, "--resume"):
                pass
        (tmp_path / HOLDER).write_text("[" * 4000)
        with pytest.raises(UserError, match="another process"):
            with locked(tmp_path, "--resume"):
                pass
    assert [p.name for p in tmp_path.iterdir()] == ["config.yaml"]


def wait() -> None:
    nth("policyopt.training.loop:Trainer", "step", 0, lambda original, *args: time.sleep(60))


def test_a_folder_in_use_is_neither_resumed_nor_begun_in(tmp_path: Path, tiny_model: Path) -> None:
    config = tiny_run(tmp_path / "run", tiny_model, write_task(tmp_path / "task"), steps=2)
    process = start(config, sabotage=wait)
    assert hear(process) == "fitting"
    for resume in (config.out, None):
        with pytest.raises(UserError, match=f"a run is going on there .process {process.pid} on"):
            run(config, resume=resume, quiet=True)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    finish(start(config, resume=True), config)
