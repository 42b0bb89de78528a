"""Servers for tests: in this process, whose inside can be looked at, and in one of their own, which can be killed."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from policyopt.models.load import load_policy
from policyopt.serve.server import listening
from policyopt.serve.service import Service
from policyopt.serve.store import opened

ROOT = Path(__file__).parents[2]


def start(model: Path | str, folder: Path, *line: str, port: int = 0, **environment: str) -> tuple[Any, str]:
    """A server that answers: its process, and its address."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
    command = [sys.executable, "-m", "policyopt", "serve", "--model", str(model), "--folder", str(folder)]
    process = subprocess.Popen(
        [*command, "--port", str(port), "--device", "cpu", *line],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env,
    )  # fmt: skip
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


@contextmanager
def here(
    model: Path,
    folder: Path,
    *,
    dtype: Any = "float32",
    queue: int = 4096,
    token: str | None = None,
    clean: bool = True,
) -> Iterator[tuple[str, Service]]:
    """The address and the inside of a server in a thread of this process; without ``clean`` it ends as if it were killed."""
    with opened(folder) as store, listening("127.0.0.1", 0) as found:
        service = Service(load_policy(str(model), dtype=dtype, device="cpu"), [str(model)], store, queue)
        service.start()
        stop = serving(service, token, found)
        try:
            yield f"http://127.0.0.1:{found.getsockname()[1]}", service
        finally:
            stop()
            if clean:
                service.stop()
            else:
                service.desk.stop()


def serving(service: Service, token: str | None, found: Any) -> Callable[[], None]:
    """Answer requests in a thread; returns what ends it."""
    import uvicorn

    from policyopt.serve.app import App

    app = App(service, token)
    server = uvicorn.Server(uvicorn.Config(app.asgi, log_level="error", lifespan="off", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=asyncio.run, args=(server.serve(sockets=[found]),), daemon=True)
    thread.start()

    def stop() -> None:
        server.should_exit = True
        thread.join()

    return stop
