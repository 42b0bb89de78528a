"""Servers in processes of their own, for as long as a test needs them."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@contextlib.contextmanager
def served(line: list[str], port: int, log: Path, env: Mapping[str, str] | None = None) -> Iterator[None]:
    """A process that listens at a port of this machine, which ends with the block."""
    with log.open("wb") as text, subprocess.Popen(line, stdout=text, stderr=text, env=env) as process:
        try:
            end = time.monotonic() + 120
            while socket.socket().connect_ex(("127.0.0.1", port)):
                assert process.poll() is None and time.monotonic() < end, log.read_text()[-3000:]
                time.sleep(0.2)
            yield
        finally:
            process.kill()
