"""Runs by the command line in several processes: started as torchrun starts them, or by torchrun itself."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from policyopt.cli import main
from tests.runs import PROCESSES, lines

MARK = "POLICYOPT_TESTED_RUN"


def line(out: Path, model: Path, task: dict[str, str], *more: Any) -> list[str]:
    """A line that trains the tiny model with four prompts of four responses a step."""
    settings = {
        "--model": model, "--task": task["task"], "--judge": task["judge"], "--batch": 16, "--group-size": 4,
        "--max-tokens": 12, "--seed": 1, "--optim.lr": "3e-3", "--eval.prompts": 6, "--eval.samples": 2, "--eval.k": 2, "--device": "cpu",
        "--checkpoints.every": 1, "--out": out,
    }  # fmt: skip
    return ["train", "grpo", *(str(x) for pair in settings.items() for x in pair), *map(str, more)]


def _rank(rank: int, size: int, port: int, words: list[str], console: Path) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1"}
    os.environ["MASTER_PORT"] = str(port)
    if size == 1:
        del os.environ["WORLD_SIZE"]
    with console.open("w") as text, contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
        sys.exit(main(words))


def forked(words: list[str], folder: Path, size: int = 2) -> tuple[list[int | None], str]:
    """Run a line in processes that have imported everything. Returns the exit codes, and what the first says."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    texts = [folder / f"rank-{rank}.txt" for rank in range(size)]
    processes = [PROCESSES.Process(target=_rank, args=(r, size, port, words, texts[r])) for r in range(size)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(150)
    codes = [process.exitcode for process in processes]
    for process in processes:
        if process.is_alive():
            process.kill()
    assert all(not text.read_text() for text in texts[1:]), "the first alone speaks"
    return codes, texts[0].read_text()


class Torchrun:
    """A line under torchrun on this machine, with two ranks."""

    def __init__(self, words: list[str], console: Path) -> None:
        self.mark, self.console = uuid.uuid4().hex, console
        start = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--nproc-per-node",
            "2",
            "--standalone",
            "-m",
            "policyopt",
        ]
        with console.open("w") as text:
            self.process = subprocess.Popen(
                [*start, *words], stdout=text, stderr=text, start_new_session=True,
                env=os.environ | {MARK: self.mark, "OMP_NUM_THREADS": "1"},
            )  # fmt: skip

    def wait(self) -> int:
        """Its exit code; all that it started is gone by then."""
        try:
            code = self.process.wait(200)
        finally:
            if self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)
        deadline = time.monotonic() + 20
        while (left := [*self._mine()]) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not left, f"left behind: {left}\n{self.console.read_text()[-3000:]}"
        return code

    def rank(self, rank: int) -> int:
        """The process id of a rank."""
        found = [pid for pid, environment in self._mine() if f"\0RANK={rank}\0" in environment]
        return min(found)  # its judge is younger

    def _mine(self) -> Iterator[tuple[int, str]]:
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                environment = (folder / "environ").read_bytes().decode(errors="replace")
                if f"{MARK}={self.mark}" in environment:
                    yield int(folder.name), environment


def until(path: Path, run: Torchrun) -> None:
    """Wait until a run has written something."""
    deadline = time.monotonic() + 120
    while not path.exists():
        assert time.monotonic() < deadline and run.process.poll() is None, run.console.read_text()[-3000:]
        time.sleep(0.1)


def curve(out: Path) -> list[dict[str, float]]:
    """What the log says of each step, without what it took and without what is nothing but float noise."""
    noise = ("time/", "tokens_per_s", "tokens/computed", "mismatch/", "loss", "kl/")
    rows = lines(out / "metrics.jsonl")
    return [{k: v for k, v in row.items() if not k.startswith(noise)} for row in rows]


def state(out: Path) -> dict[str, Any]:
    """The newest checkpoint's state."""
    newest = max((out / "checkpoints").glob("step-*"))
    found: dict[str, Any] = json.loads((newest / "state.json").read_text())
    return found
