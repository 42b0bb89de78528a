"""Where modules of judges lie, without importing any of them."""

from __future__ import annotations

import sys
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from policyopt.errors import UserError


def import_path() -> list[str]:
    """Where modules of judges are looked for: where this process looks, and in the current folder."""
    here = str(Path.cwd())
    return list(dict.fromkeys([*(entry or here for entry in sys.path), here]))


def find_source(home: str, name: str) -> Path | None:
    """The source file of a module or of a ``.py`` path, without running any of it; ``None`` for a compiled module."""
    if home.endswith(".py"):
        if not Path(home).is_file():
            raise UserError(f"judge {name!r}: there is no file {home}")
        return Path(home)
    search: Any = import_path()
    parts = home.split(".")
    for i in range(len(parts)):
        spec = PathFinder.find_spec(".".join(parts[: i + 1]), search)
        if spec is None:
            missing = ".".join(parts[: i + 1])
            raise UserError(f"judge {name!r}: no module {missing!r} in the current folder or the installed packages")
        search = spec.submodule_search_locations or []
    assert spec is not None
    return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None


def is_module(home: str) -> bool:
    """Whether a fresh interpreter finds a module by its name."""
    try:
        return find_source(home, home) is not None
    except UserError:
        return False
