"""SkyRL's Tinker server in a process group of its own, from the environment that ``setup.sh`` makes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

STARTER = '"$@" & wait'
"""The server reads the command line of its parent for where the words of `uv run` end; they end at ``--``."""


@contextmanager
def skyrl(environment: Path, model: Path, state: Path, seconds: float = 240.0, **backend: Any) -> Iterator[str]:
    """The address of a server of a model, whose files lie in the folder ``state``, until it is left."""
    port = free_port()
    settings = {
        "max_lora_adapters": 6,
        "max_lora_rank": 8,
        "train_micro_batch_size": 16,
        "sample_max_num_sequences": 64,
    }
    state.mkdir(parents=True, exist_ok=True)
    command = [
        "sh", "-c", STARTER, "--", str(environment / "bin" / "python"), "-m", "skyrl.tinker.api",
        "--base-model", str(model), "--backend", "jax", "--backend-config", json.dumps(settings | backend),
        "--checkpoints-base", str(state / "checkpoints"), "--database-url", f"sqlite:///{state / 'tinker.db'}",
        "--host", "127.0.0.1", "--port", str(port),
    ]  # fmt: skip
    path = f"{environment / 'standin'}:{environment / 'bin'}:{os.environ['PATH']}"
    environ = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    environ |= {"PATH": path, "JAX_PLATFORMS": "cpu", "HF_HUB_OFFLINE": "1"}
    with (state / "server.txt").open("a") as log:
        server = subprocess.Popen(command, env=environ, stdout=log, stderr=log, start_new_session=True)
    try:
        url = f"http://127.0.0.1:{port}"
        _wait(url, server, state / "server.txt", time.monotonic() + seconds)
        yield url
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def free_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def _wait(url: str, server: subprocess.Popen[bytes], log: Path, until: float) -> None:
    while time.monotonic() < until and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/api/v1/healthz", timeout=2):
                return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(f"the server does not start:\n{log.read_text()[-3000:]}")
