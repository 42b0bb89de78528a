"""Models that are made once and kept in the cache folder."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from policyopt import cache
from policyopt.errors import UserError


def cache_folder() -> Path:
    """Where models that were made here are kept."""
    return cache.folder() / "models"


def kept(name: str, write: Callable[[Path], None], what: str) -> Path:
    """The folder ``name`` of the cache, which ``write`` fills at the first call.

    Two processes that ask at once fill it once: the second waits for the first. It appears whole or not at all. Raises
    :class:`~policyopt.errors.UserError`, in which ``what`` names the model, where the folder cannot be written.
    """
    folder = cache_folder() / name
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f"{name}.lock")):
            if not folder.is_dir():
                for leftover in folder.parent.glob(f"tmp-{name}-*"):  # of a process that was killed while it wrote
                    shutil.rmtree(leftover, ignore_errors=True)
                scratch = Path(tempfile.mkdtemp(prefix=f"tmp-{name}-", dir=folder.parent))
                try:
                    write(scratch)
                    scratch.rename(folder)
                finally:
                    shutil.rmtree(scratch, ignore_errors=True)
    except OSError as error:
        raise UserError(
            f"{what} cannot be kept in {folder.parent} ({error.strerror or error}): "
            "make room there, or set POLICYOPT_CACHE to a folder that can be written"
        ) from error
    return folder
