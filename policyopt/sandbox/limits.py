"""What a program in the sandbox may use, and how it ended."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Literal

from policyopt.errors import UserError

Status = Literal["ok", "exit", "signal", "time", "memory", "output", "processes"]
"""How a program ended: by itself with 0 ("ok") or another code ("exit"), by a signal, or at one of its limits."""


@dataclass(frozen=True)
class Limits:
    """Bounds of one program, with all processes that it starts. Raises ``UserError`` for one out of range."""

    cpu: float = 5.0
    """Seconds of processor time of each process, rounded up; the system ends it (SIGXCPU), a second later by force."""
    wall: float = 10.0
    """Seconds from its start until everything in the sandbox is killed."""
    memory_mb: int = 512
    """MiB of address space of each process, and MiB that all of them together may have resident: the first is the system's
    bound, the second is looked at every few hundredths of a second."""
    processes: int = 16
    """Processes and threads at the same time."""
    disk_mb: int = 32
    """MiB that it may write to its files in all: they lie in memory."""
    output_kb: int = 256
    """KiB of stdout and stderr together; more is never held, and ends the program."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
                raise UserError(f"sandbox limit {field.name} is {value!r}, expected a number above 0")


@dataclass(frozen=True)
class Result:
    """What a program did."""

    status: Status
    code: int | None
    """Exit code; the negative number of the signal that ended it; ``None`` where it was killed at a limit."""
    stdout: str
    """What it wrote, as UTF-8 with replacements, at most ``Limits.output_kb``. Hostile text: show it quoted alone."""
    stderr: str
    seconds: float
    """From start to end."""
    filtered: bool = True
    """System calls were filtered; False on processors for which there is no filter."""

    @property
    def ok(self) -> bool:
        """It ended by itself with exit code 0."""
        return self.status == "ok"
