"""What runs below a process, and how much memory it has, as ``/proc`` says."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

_PAGE = os.sysconf("SC_PAGE_SIZE")


def used(root: int) -> tuple[int, int]:
    """Processes and threads below ``root``, which is not counted, and bytes that they have resident."""
    count = resident = 0
    for pid in _below(root):
        with contextlib.suppress(OSError, IndexError, ValueError), open(f"/proc/{pid}/stat", "rb") as stat:
            # Behind the name, which may hold anything, from the third field on
            fields = stat.read().rpartition(b")")[2].split()
            count += int(fields[17])
            resident += int(fields[21]) * _PAGE
    return count, resident


def _below(root: int) -> Iterator[int]:
    pending = [root]
    while pending:
        pid = pending.pop()
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{pid}/task"):
                with (
                    contextlib.suppress(OSError, ValueError),
                    open(f"/proc/{pid}/task/{task}/children", "rb") as children,
                ):
                    found = [int(child) for child in children.read().split()]
                    pending += found
                    yield from found
