"""Judging under limits: the judge runs in worker processes that are killed when it hangs."""

from __future__ import annotations

import contextlib
import json
import math
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any

from policyopt.errors import UserError
from policyopt.items import Example, JudgeSpec, Verdict
from policyopt.judging.given import packed
from policyopt.judging.judges import check_judge
from policyopt.judging.modules import import_path
from policyopt.judging.worker import SEEN, receive, send

CHUNK = 64
"""Items that a worker gets at once."""
LOADING = 120.0
"""Seconds that a worker may take to start and to load the judge."""

Item = tuple[Example, str]


def _failed(reason: str) -> Verdict:
    return Verdict(0.0, False, False, reason, failed=True)


class _Gone(Exception):
    """The worker has died or cannot be talked to any more."""


def _kill(process: subprocess.Popen[bytes], sock: socket.socket) -> None:
    """End a worker and whatever it has started."""
    with contextlib.suppress(ProcessLookupError):
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
        self.patience, self.together = timeout, False
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
        self.columns = tuple(answer["columns"])
        self.patience, self.together = answer["patience"], answer["together"]
        self.loaded = True

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
            return receive(self.sock)
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


class JudgePool:
    """Judges responses in worker processes, each under a limit of time and memory.

    A judge that raises, hangs, dies or returns nonsense costs one response its score (0, ``failed``, with the reason);
    the worker is restarted where needed and the rest are judged. What a judge prints is dropped.

    Args:
        judge: Which judge.
        timeout: Seconds for one response.
        memory_mb: Memory that judging may take, in MiB, on top of what loading the judge took.
        workers: Processes.

    Raises:
        UserError: The judge is unknown or cannot work (before any process is started), or a limit is out of range.
    """

    def __init__(self, judge: JudgeSpec, *, timeout: float = 10.0, memory_mb: int = 1024, workers: int = 1) -> None:
        if not (math.isfinite(timeout) and timeout > 0):
            raise UserError(f"judge timeout is {timeout}, expected a positive number of seconds")
        if memory_mb < 16:
            raise UserError(f"judge memory is {memory_mb} MB, expected at least 16")
        if workers < 1:
            raise UserError(f"judge workers is {workers}, expected at least 1")
        check_judge(judge)
        self._functions = packed(judge)
        self.judge, self.timeout, self.memory = judge, float(timeout), memory_mb << 20
        self._closed = False
        self._busy = threading.Lock()
        self._workers = [self._start() for _ in range(workers)]

    def ready(self) -> None:
        """Wait until the judge is loaded (workers start in the background). Raises ``UserError`` when it cannot be."""
        for worker in self._workers:
            worker.ready()

    @property
    def provides(self) -> frozenset[str]:
        """The columns that the judge fills, as it says itself once it is :meth:`ready`."""
        return frozenset({"correct", "formatted"}.union(*(worker.columns for worker in self._workers)))

    def __call__(self, items: Sequence[Item]) -> list[Verdict]:
        """The verdicts on (example, response) pairs, in order. Responses may hold any text.

        Raises:
            UserError: The judge could not be loaded at the start.
        """
        if self._closed:
            raise RuntimeError("this JudgePool is closed")
        with self._busy:
            verdicts = [_failed("judge was interrupted")] * len(items)
            chunks: queue.SimpleQueue[int] = queue.SimpleQueue()
            # Small chunks where there are few items, so that every worker has its share
            size = max(1, min(CHUNK, math.ceil(len(items) / len(self._workers))))
            for start in range(0, len(items), size):
                chunks.put(start)
            stop = threading.Event()

            def work(slot: int) -> None:
                while not stop.is_set():
                    try:
                        start = chunks.get_nowait()
                    except queue.Empty:
                        return
                    verdicts[start : start + size] = self._judge(slot, items[start : start + size], stop)

            with ThreadPoolExecutor(len(self._workers)) as threads:
                try:
                    self.ready()
                    for done in [threads.submit(work, slot) for slot in range(len(self._workers))]:
                        done.result()
                except UserError:
                    raise
                except BaseException:
                    # Interrupted: what is on its way would be taken for the answers to the next call
                    stop.set()
                    for worker in self._workers:
                        worker.kill()
                    threads.shutdown()
                    self._workers = [self._start() for _ in self._workers]
                    raise
        return verdicts

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
        return _Worker(self.judge, self._functions, self.timeout, self.memory)

    def _judge(self, slot: int, items: Sequence[Item], stop: threading.Event) -> list[Verdict]:
        """The verdicts on one chunk. The worker is restarted after each item that it does not survive."""
        verdicts: list[Verdict] = []
        while len(verdicts) < len(items) and not stop.is_set():
            worker = self._workers[slot]
            try:
                worker.ready()
                worker.give(items[len(verdicts) :])
                while len(verdicts) < len(items):
                    verdicts.append(worker.take())
                break
            except UserError as error:
                # It could be loaded once, so the reason is outside: the next chunk tries again
                verdicts += [_failed(str(error)) for _ in items[len(verdicts) :]]
            except (TimeoutError, _Gone) as error:
                verdicts += [_failed(str(error))] * worker.waiting
            worker.kill()
            if not stop.is_set():
                self._workers[slot] = self._start()
        return verdicts
