"""Checkpoints: tensors as safetensors, the rest as JSON, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from policyopt.errors import UserError
from policyopt.files import read_json, sync
from policyopt.training.logging import disk_errors

_TENSORS, _STATE, _MANIFEST = "tensors.safetensors", "state.json", "manifest.json"
_NAME = re.compile(r"step-(\d{6,})", re.ASCII)
_SCRAP = re.compile(rf"tmp-(old-)?{_NAME.pattern}", re.ASCII)


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run after ``step`` steps."""

    step: int
    state: dict[str, Any]
    tensors: dict[str, Tensor]
    folder: Path
    """Where it lies, with what others wrote into it."""


def save_checkpoint(
    folder: Path, step: int, state: Mapping[str, Any], tensors: Mapping[str, Tensor], keep: int,
    write: Callable[[Path], None] = lambda scratch: None,
) -> Path:  # fmt: skip
    """Write ``folder/step-000012`` and delete all but the newest ``keep``. What else lies there is left alone. ``write`` may
    put files of its own beside ``state`` and ``tensors``; the manifest is over them too.

    The files are written and synced under another name, then renamed: whoever looks sees a whole checkpoint or none.
    Raises :class:`~policyopt.errors.UserError` when the disk is full or may not be written, or where something else has the
    name; nothing is left behind and older checkpoints stay.
    """
    final = folder / f"step-{step:06d}"
    if os.path.lexists(final) and final not in _checkpoints(folder):
        raise UserError(f"{final}: no checkpoint has this name, and the next one needs it; move it away, then go on with --resume")  # fmt: skip
    scratch = folder / f"tmp-{final.name}"
    with disk_errors(final):
        try:
            _write(scratch, {"step": step} | dict(state), tensors, write)
            if final.exists():
                final.rename(folder / f"tmp-old-{final.name}")
            scratch.rename(final)
            sync(folder)
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise
        prune(folder, keep)
    return final


def prune(folder: Path, keep: int) -> None:
    """Delete all but the newest ``keep`` checkpoints, and what a run left that was killed while it wrote."""
    for old in _checkpoints(folder)[:-keep]:
        old.rename(folder / f"tmp-old-{old.name}")  # half of one must never stand under its name
    _sweep(folder)


def _sweep(folder: Path) -> None:
    for scrap in _folders(folder, _SCRAP):
        shutil.rmtree(scrap)


def _write(
    scratch: Path, state: Mapping[str, Any], tensors: Mapping[str, Tensor], write: Callable[[Path], None]
) -> None:
    """The files of a checkpoint, on the disk for good."""
    _sweep(scratch.parent)
    scratch.mkdir(parents=True)
    save_file({name: x.detach().cpu().contiguous() for name, x in tensors.items()}, scratch / _TENSORS)
    (scratch / _STATE).write_text(json.dumps(state))
    write(scratch)
    files = sorted(p for p in scratch.rglob("*") if p.is_file())
    manifest = {str(p.relative_to(scratch)): {"bytes": p.stat().st_size, "sha256": _digest(p)} for p in files}
    (scratch / _MANIFEST).write_text(json.dumps(manifest))
    for path in (*scratch.rglob("*"), scratch):
        sync(path)


def load_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest checkpoint under ``folder``, or None where there is none.

    Raises :class:`~policyopt.errors.UserError` naming the file when one is cut short or changed.
    """
    found = _checkpoints(folder)
    if not found:
        return None
    newest = found[-1]
    advice = (
        f"delete {newest} to resume from the checkpoint before it"
        if len(found) > 1
        else f"delete {newest} to start again"
    )
    try:
        manifest = read_json(newest / _MANIFEST)
    except UserError as error:
        raise UserError(f"{error}: the checkpoint is damaged; {advice}") from error
    try:
        for name in {_TENSORS: 0, _STATE: 0} | manifest:
            path, entry = newest / name, manifest[name]
            if not path.exists():
                raise UserError(f"{path} is missing: the checkpoint is incomplete; {advice}")
            if path.stat().st_size != entry["bytes"]:
                raise UserError(
                    f"{path} has {path.stat().st_size} bytes instead of {entry['bytes']}: the checkpoint was cut short; {advice}"
                )
            if _digest(path) != entry["sha256"]:
                raise UserError(f"{path} is not what was written: the checkpoint is damaged; {advice}")
        state = json.loads((newest / _STATE).read_text())
        if state["step"] != int(newest.name.removeprefix("step-")):
            raise UserError(
                f"{newest} is a copy of the checkpoint of step {state['step']}: move it away, or call it something else, such as "
                f"{newest.name}-copy"
            )
        return Checkpoint(state["step"], state, load_file(newest / _TENSORS), newest)
    except UserError:
        raise
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        RecursionError,
    ) as error:  # only the manifest is not covered by a hash
        raise UserError(
            f"{newest / _MANIFEST} cannot be read ({error!r}): the checkpoint is damaged; {advice}"
        ) from error


def _checkpoints(folder: Path) -> list[Path]:
    """Oldest first. What only looks like one (``step-000003-best``, a file, a link) is somebody else's."""
    return sorted(_folders(folder, _NAME), key=lambda path: int(path.name.removeprefix("step-")))


def _folders(folder: Path, name: re.Pattern[str]) -> list[Path]:
    """The folders in a folder, links aside, whose whole names are of a pattern."""
    return [p for p in folder.glob("*step-*") if name.fullmatch(p.name) and p.is_dir() and not p.is_symlink()]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
