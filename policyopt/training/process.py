"""The process of a run: what may end it from outside, memory that runs out, and who started it."""

from __future__ import annotations

import _thread
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

from policyopt.errors import UserError

if TYPE_CHECKING:
    from policyopt.training.console import Console

ENDING = (signal.SIGTERM, signal.SIGHUP)
"""What batch systems, containers and closing terminals send beside Ctrl-C."""


class Stopped(KeyboardInterrupt):
    """A signal other than Ctrl-C ended the work."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def exit_code(error: KeyboardInterrupt) -> int:
    """What a shell takes for a command that a signal ended."""
    return 128 + (error.number if isinstance(error, Stopped) else signal.SIGINT)


@contextmanager
def stoppable() -> Iterator[None]:
    """SIGTERM and SIGHUP end what is inside as Ctrl-C does: by an exception, so that all of it is put away.

    A signal that is ignored at the start (``nohup``) stays ignored. Outside the main thread nothing changes.
    """

    def end(number: int, frame: FrameType | None) -> None:
        raise Stopped(number)

    with _heard(end, ENDING):
        yield


class Interrupt:
    """Turns the first Ctrl-C, SIGTERM or SIGHUP into a request to stop after the step; a second one stops at once."""

    def __init__(self, console: Console) -> None:
        self.asked = 0
        """The signal that asked; 0: none has."""
        self._console = console

    def __enter__(self) -> Interrupt:
        self._handlers = _heard(self._hear, (signal.SIGINT, *ENDING))
        self._handlers.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._handlers.__exit__(None, None, None)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt if number == signal.SIGINT else Stopped(number)
        self.asked = number
        # Said by another thread: this one may be in the middle of printing, where it must not print again.
        name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        text = f"{name}: stopping after this step, with a checkpoint (once more stops at once)"
        _thread.start_new_thread(self._console.note, (text,))


@contextmanager
def _heard(handler: Callable[[int, FrameType | None], None], numbers: tuple[signal.Signals, ...]) -> Iterator[None]:
    """Handle signals for a while, in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    terminals = [fd for fd in (1, 2) if _is_terminal(fd)]

    def hear(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:  # the terminal is gone: printing to it would raise
            for fd in terminals:
                os.dup2(os.open(os.devnull, os.O_WRONLY), fd)
        handler(number, frame)

    chosen = [n for n in numbers if n == signal.SIGINT or signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, hear) for number in chosen}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _is_terminal(fd: int) -> bool:
    try:
        return os.isatty(fd)
    except OSError:
        return False


# Memory and launchers -------------------------------------------------------------------------------------------------


@contextmanager
def memory_errors(advice: str) -> Iterator[None]:
    """Turn memory that runs out, on a GPU or the machine, into a :class:`~policyopt.errors.UserError` with what to do."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        said = str(error)
        if not isinstance(error, MemoryError) and not re.search("out of memory|can't allocate memory", said):
            raise
        where = "the GPU" if "CUDA" in said else "this machine"
        tried = re.search(r"ried to allocate ([\d.,]+ \w+)", said)
        asked = f" (another {tried[1].rstrip('.')} were asked for)" if tried else ""
        raise UserError(f"{where} is out of memory{asked}: {advice}") from error


def ranks() -> int:
    """How many processes a launcher such as torchrun has started of this one; 1 without a launcher."""
    world = os.environ.get("WORLD_SIZE", "1")
    return max(1, int(world)) if world.isdecimal() else 1


def serves() -> bool:
    """Whether this process is one of several that a launcher has started, and not the first, which drives the others."""
    return ranks() > 1 and os.environ.get("RANK", "0") != "0"


def need_one_process() -> None:
    """Raises :class:`~policyopt.errors.UserError` where a launcher has started several processes of this one."""
    if ranks() > 1:
        raise UserError(
            f"WORLD_SIZE is {ranks()}, as a launcher such as torchrun sets it, and only training runs in several processes: "
            "start this by `policyopt` itself, in one process, on one GPU (--device cuda:0)"
        )


def need_launcher() -> None:
    """Raises :class:`~policyopt.errors.UserError` where there are to be several processes and nothing says how they find each
    other."""
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if ranks() > 1 and missing:
        raise UserError(
            f"WORLD_SIZE is {ranks()}, and {', '.join(missing)} are not set: start several processes with torchrun "
            "--nproc-per-node N -m policyopt train ..., or unset WORLD_SIZE to train in one process"
        )


@contextmanager
def together(engine: str) -> Iterator[None]:
    """Where a launcher has started several processes, they are one crew in here: the first carries out what is inside, the
    others serve it and leave by ``SystemExit``.

    Raises :class:`~policyopt.errors.UserError` for an engine that starts processes of its own, and where they do not find
    each other.
    """
    if ranks() == 1:
        yield
        return
    if engine != "local":
        raise UserError(
            f"--engine {engine}: it starts processes of its own, and WORLD_SIZE is {ranks()}, as a launcher such as torchrun "
            "sets it: start it by `policyopt train` itself, or leave --engine out"
        )
    need_launcher()
    from policyopt.engine.sharded.launch import launched

    with launched():
        yield
