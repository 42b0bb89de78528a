"""What is worked out from the package's own source and kept on the disk between commands."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parent


@cache
def digest() -> str:
    """A digest of the paths, sizes and times of the package's source: another one means that the source has changed."""
    found = blake2b(digest_size=16)
    for path, size, time in sorted(_files(PACKAGE)):
        found.update(f"{path}\0{size}\0{time}\n".encode())
    return found.hexdigest()


def _files(folder: Path) -> Iterator[tuple[str, int, int]]:
    for item in os.scandir(folder):
        if item.is_dir():
            yield from _files(Path(item.path))
        elif item.name.endswith(".py"):
            yield item.path, item.stat().st_size, item.stat().st_mtime_ns


def read(name: str) -> dict[str, Any]:
    """What was written under a name for the source as it is now; empty where there is nothing, or nothing that can be
    read."""
    try:
        found = json.loads(_file(name).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found["data"] if isinstance(found, dict) and found.get("digest") == digest() else {}


def write(name: str, data: dict[str, Any]) -> None:
    """Keep plain data under a name, whole or not at all. Where the disk takes nothing, nothing is kept."""
    path = _file(name)
    scratch = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_text(json.dumps({"digest": digest(), "data": data}), encoding="utf-8")
        scratch.replace(path)
    except OSError:
        with suppress(OSError):
            scratch.unlink()


def folder() -> Path:
    """Where all that is kept between commands lies: ``POLICYOPT_CACHE``, or the user's cache folder."""
    from platformdirs import user_cache_dir

    return Path(os.environ.get("POLICYOPT_CACHE") or user_cache_dir("policyopt"))


def _file(name: str) -> Path:
    """One file for each place that the package lies in, so that two checkouts do not undo each other's."""
    place = blake2b(str(PACKAGE).encode(), digest_size=6).hexdigest()
    return folder() / f"{name}-{place}.json"
