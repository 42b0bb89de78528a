"""Resident memory of this process (Linux), in MiB."""

from __future__ import annotations

import contextlib
import ctypes
import gc
from pathlib import Path


def trim() -> None:
    """Give back what is free; whoever needs it again has to fetch it."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def reset() -> None:
    """Begin a new peak."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak() -> float:
    """The most since the last reset."""
    return _line("VmHWM")


def now() -> float:
    """What is resident."""
    return _line("VmRSS")


def _line(name: str) -> float:
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1]) / 1024
    return float("nan")
