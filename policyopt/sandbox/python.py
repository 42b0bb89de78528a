"""Python in the sandbox: the interpreter that runs this, with its standard library and nothing else."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Python:
    """How a Python program is started inside."""

    command: tuple[str, ...]
    """The interpreter with its options; the file and its arguments follow."""
    reads: tuple[str, ...]
    """Directories that it needs to see."""


def python(packages: bool = False) -> Python:
    """This interpreter without what the user has installed for it; with ``packages``, with that."""
    base = os.path.realpath(getattr(sys, "_base_executable", "") or sys.executable)
    homes = {os.path.realpath(sys.base_prefix), os.path.realpath(sys.base_exec_prefix), os.path.dirname(base)}
    program = base
    if packages and sys.prefix != sys.base_prefix:
        program = sys.executable
        homes.add(sys.prefix)
    outside = sorted(home for home in homes if not home.startswith("/usr/") and home != "/usr")
    # What lies inside another one comes with it
    reads = tuple(home for home in outside if not any(home.startswith(f"{other}/") for other in outside))
    site = () if packages else ("-S",)
    return Python((program, "-B", "-s", "-P", *site, "-X", "utf8"), reads)
