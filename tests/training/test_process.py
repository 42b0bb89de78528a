"""SIGTERM and SIGHUP end a run as Ctrl-C does; memory that runs out and launchers of many processes are one line."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from policyopt.errors import UserError
from policyopt.items import Example, JudgeSpec, user
from policyopt.judging.pool import JudgePool
from policyopt.training.checkpoint import load_checkpoint
from policyopt.training.config import Checkpoints
from policyopt.training.process import (
    Stopped,
    exit_code,
    memory_errors,
    need_launcher,
    need_one_process,
    ranks,
    serves,
    stoppable,
    together,
)
from tests.runs import finish, nth, start, tiny_run
from tests.tiny import write_task


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_what_is_inside_ends_by_an_exception(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(Stopped) as caught, stoppable():
        signal.raise_signal(number)
    assert exit_code(caught.value) == 128 + number
    assert signal.getsignal(number) is before


def test_what_is_ignored_from_the_start_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stoppable():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def wait_for(text: str, file: Path) -> None:
    end = time.monotonic() + 60
    while text not in (file.read_text() if file.exists() else ""):
        assert time.monotonic() < end, file.read_text()
        time.sleep(0.01)


def slow_evaluation() -> None:
    def slow(original: Any, *args: Any) -> Any:
        print("evaluating", flush=True)
        time.sleep(60)

    nth("policyopt.training.evaluate:Evaluator", "__call__", 0, slow)


def test_a_run_keeps_its_step_and_goes_on(tmp_path: Path, tiny_model: Path) -> None:
    config = tiny_run(tmp_path / "run", tiny_model, write_task(tmp_path / "task"), checkpoints=Checkpoints(every=100), steps=30)  # fmt: skip
    assert config.out is not None
    text = config.out.with_suffix(".txt")
    process = start(config)
    wait_for("step 2/30", text)
    os.kill(process.pid, signal.SIGTERM)
    finish(process, config)
    summary = json.loads((config.out / "summary.json").read_text())
    found = load_checkpoint(config.out / "checkpoints")
    assert found is not None
    assert 2 <= found.step == summary["steps"] < 30
    assert (summary["stopped"], summary["signal"]) == ("interrupted", signal.SIGTERM)
    assert "SIGTERM: stopping after this step" in text.read_text()


def test_before_the_first_step_there_is_nothing_to_wait_for(tmp_path: Path, tiny_model: Path) -> None:
    config = tiny_run(tmp_path / "run", tiny_model, write_task(tmp_path / "task"))
    assert config.out is not None
    text = config.out.with_suffix(".txt")
    process = start(config, sabotage=slow_evaluation)
    wait_for("evaluating", text)
    os.kill(process.pid, signal.SIGHUP)
    process.join(50)
    assert process.exitcode == 1
    assert f"Stopped: SIGHUP\ngo on with: policyopt train --resume {config.out}" in text.read_text()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "this machine is out of memory: take less"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 ..."), "the GPU is out of memory .another 2.00 GiB"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 800 bytes."), "this machine .*800 bytes"),
    ],
)  # fmt: skip
def test_memory_that_runs_out(error: Exception, said: str) -> None:
    with pytest.raises(UserError, match=said), memory_errors("take less"):
        raise error
    with pytest.raises(RuntimeError, match="ours"), memory_errors("take less"):
        raise RuntimeError("ours")


def test_a_launcher_of_several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    for world in ("1", "", "many"):
        monkeypatch.setenv("WORLD_SIZE", world)
        need_one_process()
        need_launcher()
        with together("tinker"):
            pass
        assert ranks() == 1 and not serves()
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(UserError, match=r"WORLD_SIZE is 4.*torchrun.*one process"):
        need_one_process()
    with pytest.raises(UserError, match=r"RANK, MASTER_ADDR, MASTER_PORT are not set: .*torchrun.*unset WORLD_SIZE"):
        need_launcher()
    with pytest.raises(UserError, match=r"--engine ray: it starts processes of its own, and WORLD_SIZE is 4"):
        with together("ray"):
            pass
    monkeypatch.setenv("RANK", "1")
    assert ranks() == 4 and serves()


CHILDREN = """
import multiprocessing, os, signal, subprocess, time

def score(prompt, response, answer):
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGHUP)
    fork = multiprocessing.get_context("fork")
    up = fork.Event()
    mine = [subprocess.Popen(["sleep", "60"]), fork.Process(target=lambda: (up.set(), time.sleep(60)))]
    mine[1].start()
    up.wait(5)
    for child in mine:
        child.terminate()
    return float(mine[0].wait(5) == -15 and mine[1].join(5) is None and mine[1].exitcode == -15)
"""


def test_a_judge_outlives_what_ends_the_run_and_can_end_its_own_children(tmp_path: Path) -> None:
    (tmp_path / "children.py").write_text(CHILDREN)
    with JudgePool(JudgeSpec(f"{tmp_path / 'children.py'}:score")) as pool:
        (verdict,) = pool([(Example("1", user("?"), "1"), "1")])
    assert (verdict.score, verdict.failed) == (1.0, False), verdict.reason
