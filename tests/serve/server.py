"""A server in a process of its own, which can be killed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def start(model: Path | str, folder: Path, *line: str, port: int = 0, **environment: str) -> tuple[Any, str]:
    """A server that answers: its process, and its address."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
    command = [
        sys.executable,
        "-m",
        "policyopt",
        "serve",
        "--model",
        str(model),
        "--folder",
        str(folder),
        "--port",
        str(port),
    ]
    process = subprocess.Popen(
        [*command, "--device", "cpu", *line], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env
    )
    assert process.stdout is not None
    said = []
    for text in process.stdout:
        said.append(text)
        if found := re.search(r"TINKER_BASE_URL=(\S+)", text):
            return process, found[1]
    process.wait()
    raise AssertionError("".join(said))


def end(process: Any, number: int = signal.SIGINT) -> str:
    """End a server by a signal; returns what it said since."""
    process.send_signal(number)
    said, _ = process.communicate(timeout=60)
    return str(said)


@contextmanager
def running(model: Path | str, folder: Path, *line: str, **environment: str) -> Iterator[str]:
    """The address of a server that runs meanwhile, with its state in a folder."""
    process, url = start(model, folder, *line, **environment)
    try:
        yield url
    finally:
        if process.poll() is None:
            end(process)
