"""The process that runs cells: it imports what a run needs once, and forks for each of them.

Started by :mod:`policyopt.comparing.runner`; every line of its input is a cell, every line of its output the end of one. When
the other end goes, the cells are asked to end, and save what they have.
"""

from __future__ import annotations

import dataclasses
import json
import os
import select
import shutil
import signal
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from policyopt.errors import UserError

if TYPE_CHECKING:
    from policyopt.training.config import TrainConfig

STOPPED = 3
"""The exit code of a cell that was asked to stop and has saved what it had."""


def run_cell(config: TrainConfig, out: Path, start: Path | None) -> bool:
    """Carry out one cell in the folder ``out``, or go on with it where it has begun. Returns whether it came to its end.

    Its checkpoints and its model go when it has: what a comparison needs stands in its log, and the same configuration gives
    the same weights again.
    """
    from policyopt.training.run import run

    begun = (out / "config.yaml").is_file()
    if not begun:
        shutil.rmtree(out, ignore_errors=True)  # of a process that was killed before anything was there to go on with
    result = run(dataclasses.replace(config, out=out), resume=out if begun else None, quiet=True, start=start)
    if "signal" in result.summary:
        (out / "summary.json").unlink()  # it has not ended
        return False
    for name in ("checkpoints", "model", "tensorboard"):
        shutil.rmtree(out / name, ignore_errors=True)
    return True


def _child(cell: Mapping[str, Any]) -> int:
    """What a forked process does: one cell, with all that it says in a file."""
    os.setsid()  # Ctrl-C in the terminal is for the parent, which asks in its own time
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    log = os.open(cell["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    quiet = os.open(os.devnull, os.O_RDONLY)
    os.dup2(quiet, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    try:
        from policyopt.training.config import config_from_dict

        start = None if cell["start"] is None else Path(cell["start"])
        return 0 if run_cell(config_from_dict(cell["config"]), Path(cell["folder"]), start) else STOPPED
    except KeyboardInterrupt:
        return STOPPED
    except UserError as error:
        print(f"policyopt: {error}", file=sys.stderr, flush=True)
        return 2
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def main() -> None:
    """Fork for every cell that comes in, and say how each ends: its folder and its exit code, negative for a signal."""
    # Once for all, what a run itself imports as it goes among it
    import torch.utils.tensorboard  # noqa: F401

    import policyopt.engine.local.engine
    import policyopt.training.run  # noqa: F401

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    wake, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    running: dict[int, str] = {}
    pending, open_ = b"", True
    while open_ or running:
        ready, _, _ = select.select([wake, *([0] if open_ else [])], [], [])
        if wake in ready:
            os.read(wake, 512)
            for pid in [*running]:
                done, status = os.waitpid(pid, os.WNOHANG)
                if done:
                    _say({"folder": running.pop(pid), "code": os.waitstatus_to_exitcode(status)})
        if 0 in ready:
            data = os.read(0, 1 << 16)
            open_ = bool(data)
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                asked = json.loads(line)
                if "cell" in asked:
                    running[_fork(asked["cell"])] = asked["cell"]["folder"]
                else:
                    _tell(running, asked["signal"])
            if not open_:
                _tell(running, signal.SIGTERM)


def _fork(cell: Mapping[str, Any]) -> int:
    pid = os.fork()
    if pid == 0:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os._exit(_child(cell))
    return pid


def _tell(running: Mapping[int, str], number: int) -> None:
    for pid in running:
        os.kill(pid, number)


def _say(message: Mapping[str, Any]) -> None:
    try:
        os.write(1, json.dumps(message).encode() + b"\n")
    except BrokenPipeError:  # the parent has gone
        return
