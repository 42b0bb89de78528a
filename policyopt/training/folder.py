"""The folder of a run: made, locked while the run goes on, and gone on with."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import platform
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from policyopt.data.places import label
from policyopt.engine.protocol import Engine
from policyopt.errors import UserError
from policyopt.files import need_run, read_json, write_whole
from policyopt.items import Task
from policyopt.training.config import Checkpoints, TrainConfig, config_from_yaml
from policyopt.training.inputs import FILE, Inputs
from policyopt.training.logging import disk_errors
from policyopt.training.resolved import resolved_yaml
from policyopt.training.trees import at, differences

LOCK, HOLDER = "run.lock", "running.json"
"""The file that is locked while a run goes on (what it holds does not matter), and who has locked it."""


@contextmanager
def claimed(config: TrainConfig, resume: Path | None) -> Iterator[Path]:
    """The folder of a run, which no other process can take meanwhile. A new one goes if nothing is written.

    Raises :class:`~policyopt.errors.UserError` where the folder holds another run, no run to go on with, or one that is
    going on.
    """
    made: list[Path] = []
    with ExitStack() as stack:
        stack.callback(_remove_empty, made)
        if resume is None:
            out = _make(config, made)
        else:
            need_run(resume)
            out = resume
        stack.enter_context(locked(out, "--out" if resume is None else "--resume"))
        if resume is not None:
            same_run(config, resume)
        try:
            yield out
        except KeyboardInterrupt as error:
            if (out / "config.yaml").is_file():
                error.add_note(f"go on with: policyopt train --resume {out}")
            raise


def _remove_empty(folders: list[Path]) -> None:
    for folder in reversed(folders):
        with suppress(OSError):  # it holds something by now
            folder.rmdir()


@contextmanager
def locked(folder: Path, option: str) -> Iterator[None]:
    """Hold the lock of a run's folder. The system lets go of it when the process ends, however it ends.

    Raises :class:`~policyopt.errors.UserError` naming the process that holds it.
    """
    lock, holder = FileLock(folder / LOCK), folder / HOLDER
    with disk_errors(folder / LOCK):
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise UserError(
                f"{option} {folder}: a run is going on there ({_holder(holder)}); wait for it, or end it first"
            ) from None
    try:
        now = datetime.now().astimezone().isoformat(" ", "seconds")
        with suppress(OSError):  # only others need it
            write_whole(holder, json.dumps({"pid": os.getpid(), "host": platform.node(), "since": now}))
        yield
    finally:
        holder.unlink(missing_ok=True)
        (folder / LOCK).unlink(missing_ok=True)
        lock.release()


def _holder(path: Path) -> str:
    """Who holds a lock, in words."""
    try:
        who: dict[str, Any] = read_json(path, 1 << 12)
        return f"process {int(who['pid'])} on {who['host']!s:.64}, since {who['since']!s:.32}"
    except (UserError, KeyError, TypeError, ValueError):
        return "another process"


def run_name(out: Path) -> str:
    """A name that no other run has, in letters and digits: of this machine and the run's folder, which says neither."""
    return hashlib.blake2b(f"{platform.node()}:{out.resolve()}".encode(), digest_size=8).hexdigest()


def _make(config: TrainConfig, made: list[Path]) -> Path:
    """Make the folder of a new run; all that had to be made for it is added to ``made``."""
    out = config.out
    if out is not None and out.exists() and (not out.is_dir() or {p.name for p in out.iterdir()} - {LOCK, HOLDER}):
        if (out / LOCK).is_file():
            with locked(out, "--out"):
                pass
        advice = f", or go on with its run by --resume {out}" if (out / "config.yaml").is_file() else ""
        raise UserError(f"--out {out} is {'not empty' if out.is_dir() else 'a file'}: choose another folder{advice}")
    method = re.sub(r"[^\w.+-]+", "-", config.recipe.name)  # it may be anybody's own
    base = Path("runs") / f"{method}-{label(config.task)}-seed{config.seed}"
    numbered = (base.with_name(f"{base.name}-{i}") for i in itertools.count(2))
    try:
        for folder in [out] if out is not None else itertools.chain([base], numbered):
            for parent in reversed(folder.parents):
                if not parent.exists():
                    parent.mkdir(exist_ok=True)
                    made.append(parent)
            try:
                folder.mkdir()
                made.append(folder)
                return folder
            except FileExistsError:
                if out is not None:
                    return folder
    except (OSError, ValueError) as error:  # a name with a NUL
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"--out {out or base}: the run's folder cannot be made there ({reason})") from error
    raise AssertionError("there is always a next number")


def same_run(config: TrainConfig, folder: Path) -> None:
    """Check that a configuration may go on with the run in a folder: only what does not change the past may differ."""
    old = config_from_yaml(folder / "config.yaml")
    if config.out not in (None, old.out, folder):
        raise UserError(f"--out {config.out}: a resumed run goes on in its own folder, {folder}; leave --out away")
    free = {
        "steps", "out", "long_prompts", "eval", "checkpoints", "judging", "micro_batch", "log_samples", "device", "offload", "stopping",
        "track", "tracking", "push_to_hub", "hub_public", "tinker",
    }  # fmt: skip
    # A dataset without held-out rows of its own trains on what is not held out, so that their number stays.
    mine, theirs = (
        {k: v for k, v in c.to_dict().items() if k not in free} | {"eval": {"prompts": c.eval.prompts}}
        for c in (config, old)
    )
    for path in differences(mine, theirs):
        raise UserError(
            f"--resume {folder}: that run has {path} = {at(theirs, path)}, not {at(mine, path)}; "
            "resume it as it was, or start another run"
        )


def moved_horizon(config: TrainConfig, folder: Path) -> str | None:
    """What to say where a resumed run has another last step, to which its learning rate falls."""
    old = config_from_yaml(folder / "config.yaml").steps
    if config.steps == old or config.optim.schedule == "constant":
        return None
    return (
        f"steps: {old}, now {config.steps}: the learning rate follows its {config.optim.schedule} schedule to the new last step "
        "from here on, other than in a run of so many steps from the start"
    )


def write_config(out: Path, config: TrainConfig, task: Task, inputs: Inputs | None = None) -> None:
    """Write the resolved configuration of a run, and of a new one what it is started from: all of it or nothing."""
    path = out / "config.yaml"
    try:
        if inputs is not None:
            write_whole(out / FILE, inputs.to_json())
        write_whole(path, config.to_yaml() + resolved_yaml(task))
    except OSError as error:
        if inputs is not None:
            (out / FILE).unlink(missing_ok=True)
        raise UserError(
            f"{path}: the configuration cannot be written ({error.strerror}); choose another folder with --out"
        ) from error


def need_space(out: Path, engine: Engine, checkpoints: Checkpoints) -> None:
    """Refuse to start where the checkpoints and the final model would not fit on the disk."""
    size = engine.size()
    models = 1 if checkpoints.best is None else 2
    needed = size.checkpoint * (checkpoints.keep + 1) + size.model * models + (32 << 20)
    free = shutil.disk_usage(out).free
    if free < needed:
        raise UserError(
            f"{out}: the run needs about {needed >> 20} MiB for checkpoints and model, "
            f"the disk has {free >> 20} MiB free; make room, keep fewer (--checkpoints.keep), or choose another --out"
        )
