"""Judging under limits: the judge runs in worker processes that are killed when it hangs.

One worker judges what takes no time. Where it is slow, further ones share the work, up to a number for each processor.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from types import TracebackType
from typing import Any

from policyopt.errors import UserError
from policyopt.items import Example, JudgeSpec, Verdict
from policyopt.judging.blame import of_row
from policyopt.judging.comparing import Comparison, Kind, compared, questions, scored
from policyopt.judging.given import packed
from policyopt.judging.guard import GUARDS
from policyopt.judging.judges import check_judge, deterministic
from policyopt.judging.modules import import_path
from policyopt.judging.worker import SEEN, receive, send

CHUNK = 64
"""Items that a worker gets at once, at most."""
PATIENCE = 1.0
"""Seconds that a call may have lasted, and have ahead, before further workers are started."""
MOMENT = 0.05
"""Seconds of work that are not worth dividing."""
MOST = 8
"""Workers that are started unasked."""
LOADING = 120.0
"""Seconds that a worker may take to start and to load the judge."""
LONGEST = 1 << 26
"""Bytes that a worker may say at once."""
ENDING = 10.0
"""Seconds that a worker may take to end."""

Item = tuple[Example, str | tuple[str, ...]]
"""A question with a response, or with those that are compared at once."""


class _Gone(Exception):
    """The worker has died or cannot be talked to any more."""


def _kill(process: subprocess.Popen[bytes], sock: socket.socket) -> None:
    """End a worker and whatever it has started; its guard does so when nobody is at the other end of its socket."""
    if GUARDS:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(ENDING)
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    sock.close()


class _Worker:
    """One worker process. Starting it does not wait for it; :meth:`ready` does."""

    def __init__(self, judge: JudgeSpec, functions: Mapping[str, str], timeout: float, memory: int) -> None:
        self.timeout, self.judge = timeout, judge
        self.sock, theirs = socket.socketpair()
        # A fresh interpreter: the user's main module, and torch with it, is not imported again
        code = "import json, sys; sys.path[:] = json.loads(sys.argv[1])\n"
        code += "from policyopt.judging.worker import main; main(int(sys.argv[2]))"
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-c", code, json.dumps(import_path()), str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                # Its own session: Ctrl-C in the terminal does not reach it, and its children can be killed with it
                start_new_session=True,
                # One thread: a judge beside the trainer takes no cores from it, and threads take address space
                env=os.environ
                | dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
                | {"MALLOC_ARENA_MAX": "2"},  # an async judge has threads all the same
            )
        finally:
            theirs.close()
        self.kill = weakref.finalize(self, _kill, self.process, self.sock)
        self.loaded = False
        self.columns: tuple[str, ...] = ()
        self.several = self.together = False
        self.compares: Kind | None = None
        self.patience = timeout
        self.waiting = 1
        """How many items the next verdict is asked for together with."""
        hello = {"judge": judge.name, "options": dict(judge.options), "timeout": timeout, "memory": memory}
        self._send(hello | {"functions": dict(functions)}, LOADING)

    def ready(self) -> None:
        """Wait until the judge is loaded. Raises ``UserError`` when it cannot be."""
        if self.loaded:
            return
        try:
            answer = self._receive(LOADING)
        except (_Gone, TimeoutError) as error:
            self.kill()
            reason = f"took longer than {LOADING:g} s" if isinstance(error, TimeoutError) else str(error)
            raise UserError(f"judge {self.judge.name!r} could not be loaded: {reason}") from None
        if "error" in answer:
            self.kill()
            raise UserError(f"judge {self.judge.name!r} could not be loaded: {answer['error']}")
        self.columns, self.patience = tuple(answer["columns"]), answer["patience"]
        self.several, self.together, self.compares = answer["several"], answer["together"], answer["compares"]
        self.loaded = True

    def said(self, seconds: float) -> bool:
        """Whether it has sent something, after waiting at most so long."""
        return bool(select.select([self.sock], [], [], seconds)[0])

    def give(self, items: Sequence[Item]) -> None:
        rows = [[{name: getattr(e, name) for name in SEEN}, response] for e, response in items]
        try:
            self._send(rows, self.timeout)
        except TimeoutError:
            raise TimeoutError(f"judge took longer than {self.timeout:g} s") from None
        self.waiting = len(items) if self.together else 1

    def take(self) -> Verdict:
        """The verdict on the next item. Raises ``TimeoutError``, or ``_Gone`` with the reason."""
        try:
            found = Verdict(**self._receive(self.patience * self.waiting))
        except TimeoutError:
            several = f" for {self.waiting} responses" if self.waiting > 1 else ""
            raise TimeoutError(f"judge took longer than {self.patience * self.waiting:g} s{several}") from None
        except (TypeError, ValueError):
            raise _Gone("judge process sent what is no verdict") from None
        self.waiting = 1  # what is judged together comes together
        return found

    def _send(self, message: Any, timeout: float) -> None:
        self.sock.settimeout(timeout)
        try:
            send(self.sock, message)
        except TimeoutError:
            raise
        except OSError:
            # Whatever it still has to say comes with the next receive
            pass

    def _receive(self, timeout: float) -> Any:
        self.sock.settimeout(timeout)
        try:
            return receive(self.sock, LONGEST)
        except TimeoutError:
            raise
        except (EOFError, OSError, ValueError):
            raise _Gone(self._cause()) from None

    def _cause(self) -> str:
        try:
            status = self.process.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            return "judge closed its connection"
        if status < 0:
            return f"judge process was killed by {signal.Signals(-status).name}"
        return f"judge process ended with exit status {status}"


class _Work:
    """The items of one call, handed out piece by piece to whoever is free."""

    def __init__(self, items: Sequence[Item], most: int) -> None:
        self.items, self._most = items, most
        self.verdicts: list[Verdict | None] = [None] * len(items)
        self.stop = threading.Event()
        self._taken, self._done, self._lock, self._begun = 0, 0, threading.Lock(), time.monotonic()

    def take(self, several: bool) -> slice | None:
        """The next piece; ``None`` where nothing is left. Pieces get smaller towards the end, so that all end together, but are
        never less than a moment's work; a judge that has ``several`` items under way at once gets all that is left."""
        with self._lock:
            left = len(self.items) - self._taken
            if not left or self.stop.is_set():
                return None
            quick = int(MOMENT * self._done / (time.monotonic() - self._begun)) if self._done else 1
            size = left if several else min(CHUNK, left, max(quick, math.ceil(left / (2 * self._most))))
            self._taken += size
            return slice(self._taken - size, self._taken)

    def put(self, place: int, verdict: Verdict) -> None:
        with self._lock:
            self.verdicts[place] = verdict
            self._done += 1

    @property
    def waiting(self) -> bool:
        """Nobody has taken the last items yet."""
        return self._taken < len(self.items) and not self.stop.is_set()

    def slow(self) -> bool:
        """Whether it has lasted long and, at the pace so far, has as long ahead."""
        seconds = time.monotonic() - self._begun
        return seconds >= PATIENCE and seconds / (self._done + 1) * (len(self.items) - self._taken) >= PATIENCE


class JudgePool:
    """Judges responses in worker processes, each under a limit of time and memory.

    A judge that raises, hangs, dies or returns nonsense fails on one response (``failed``, with the reason, and no score);
    the worker is restarted where needed and the rest are judged. What a judge prints is dropped. A built-in judge is
    asked once for equal responses to one example.

    Args:
        judge: Which judge.
        timeout: Seconds for one response.
        memory_mb: Memory that judging may take, in MiB, on top of what loading the judge took.
        workers: Processes, at most: the second and further ones start once judging turns out to be slow. Unset: one for
            each processor, up to 8.

    Raises:
        UserError: The judge is unknown or cannot work (before any process is started), or a limit is out of range.
    """

    def __init__(
        self, judge: JudgeSpec, *, timeout: float = 10.0, memory_mb: int = 1024, workers: int | None = None
    ) -> None:
        if not (math.isfinite(timeout) and timeout > 0):
            raise UserError(f"judge timeout is {timeout}, expected a positive number of seconds")
        if memory_mb < 16:
            raise UserError(f"judge memory is {memory_mb} MB, expected at least 16")
        if workers is not None and workers < 1:
            raise UserError(f"judge workers is {workers}, expected at least 1")
        check_judge(judge)
        self._functions = packed(judge)
        self.judge, self.timeout, self.memory = judge, float(timeout), memory_mb << 20
        self.most = workers or min(MOST, processors())
        self._once = deterministic(judge)
        self._closed = False
        self._busy = threading.Lock()
        self._workers = [self._start()]

    def ready(self) -> None:
        """Wait until the judge is loaded (it starts in the background). Raises ``UserError`` when it cannot be."""
        self._workers[0].ready()

    @property
    def provides(self) -> frozenset[str]:
        """The columns that the judge fills, as it says itself once it is :meth:`ready`."""
        return frozenset({"correct", "formatted", *self._workers[0].columns})

    @property
    def compares(self) -> bool:
        """Whether the judge compares responses to the same prompt, in the place of scoring each; known once it is :meth:`ready`."""
        return self._workers[0].compares is not None

    def __call__(self, items: Sequence[tuple[Example, str]]) -> list[Verdict]:
        """The verdicts on (example, response) pairs, in order. Responses may hold any text. A judge that compares holds neighbours
        of the same example against each other.

        Raises:
            UserError: The judge could not be loaded at the start.
        """
        self._open()
        if not self.compares:
            return self._asked(items)
        runs = [list(run) for _, run in itertools.groupby(items, lambda item: id(item[0]))]
        found = self.compare([(run[0][0], [text for _, text in run]) for run in runs])
        return [verdict for comparison in found for verdict in comparison.verdicts]

    def compare(self, groups: Sequence[tuple[Example, Sequence[str]]]) -> list[Comparison]:
        """The responses to each example, held against each other (:mod:`policyopt.judging.comparing`); where the judge scores, by
        their scores.

        Raises:
            UserError: The judge could not be loaded at the start.
        """
        self._open()
        kind = self._workers[0].compares
        asked = [questions(kind, texts) for _, texts in groups]
        found = iter(self._asked([(example, q) for (example, _), qs in zip(groups, asked, strict=True) for q in qs]))
        said = [[next(found) for _ in qs] for qs in asked]
        if kind is None:
            return list(map(scored, said))
        return [compared(kind, texts, verdicts) for (_, texts), verdicts in zip(groups, said, strict=True)]

    def _open(self) -> None:
        """Wait for the judge. Raises ``UserError`` where it cannot be loaded."""
        if self._closed:
            raise RuntimeError("this JudgePool is closed")
        self.ready()

    def _asked(self, items: Sequence[Item]) -> list[Verdict]:
        """What the judge says of each item."""
        places = [(id(example), text) if self._once else (i, "") for i, (example, text) in enumerate(items)]
        asked = dict(zip(places, items, strict=True))
        with self._busy:
            found = dict(zip(asked, self._verdicts(list(asked.values())), strict=True))
        return [found[place] for place in places]

    def close(self) -> None:
        """End the worker processes. Closing twice is fine."""
        self._closed = True
        for worker in self._workers:
            worker.kill()

    def __enter__(self) -> JudgePool:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _start(self) -> _Worker:
        if self._closed:  # by another thread, while this one judged
            raise RuntimeError("this JudgePool is closed")
        return _Worker(self.judge, self._functions, self.timeout, self.memory)

    def _verdicts(self, items: Sequence[Item]) -> list[Verdict]:
        work = _Work(items, self.most)
        with ThreadPoolExecutor(self.most) as threads:
            try:
                self.ready()
                running = {threads.submit(self._serve, slot, work) for slot in range(len(self._workers))}
                while left := wait(running, PATIENCE / 2, "FIRST_EXCEPTION").not_done:
                    for done in running - left:
                        done.result()
                    slots = range(len(self._workers), self.most)
                    if slots and not self._workers[0].several and work.slow():
                        self._workers += [self._start() for _ in slots]
                        running |= {threads.submit(self._serve, slot, work) for slot in slots}
                for done in running:
                    done.result()
                del self._workers[self.most :]
            except UserError:
                raise
            except BaseException:
                # Interrupted: what is on its way would be taken for the answers to the next call
                work.stop.set()
                for worker in self._workers:
                    worker.kill()
                threads.shutdown()
                self._workers = [self._start()]
                raise
        return [verdict or Verdict.failure("judge was interrupted") for verdict in work.verdicts]

    def _serve(self, slot: int, work: _Work) -> None:
        """Judge piece after piece. A worker that still loads takes none; one that cannot load leaves it to the others."""
        while not self._workers[slot].loaded:
            if not work.waiting:
                return
            if self._workers[slot].said(0.1):
                try:
                    self._workers[slot].ready()
                except UserError:
                    self.most = min(self.most, slot)
                    return
        while (piece := work.take(self._workers[slot].several)) is not None:
            self._judge(slot, piece, work)

    def _judge(self, slot: int, piece: slice, work: _Work) -> None:
        """The verdicts on one piece. The worker is restarted after each item that it does not survive."""
        place = piece.start
        while place < piece.stop and not work.stop.is_set():
            worker = self._workers[slot]
            try:
                worker.ready()
                worker.give(work.items[place : piece.stop])
                while place < piece.stop:
                    work.put(place, worker.take())
                    place += 1
                return
            except UserError as error:
                # It could be loaded once, so the reason is outside: the next piece tries again
                while place < piece.stop:
                    work.put(place, Verdict.failure(str(error)))
                    place += 1
            except (TimeoutError, _Gone) as error:
                for _ in range(worker.waiting):
                    work.put(place, Verdict.failure(of_row(str(error), work.items[place][0].id)))
                    place += 1
            worker.kill()
            if not work.stop.is_set():
                self._workers[slot] = self._start()


def processors() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
