"""A thread that draws batches beside training, one after the other."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

X = TypeVar("X")


class Drawing:
    """A thread that carries out what it is given, in order. It is started by the first, and no exit waits for it."""

    def __init__(self) -> None:
        self._asked: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._last: Future[Any] | None = None

    @property
    def busy(self) -> bool:
        """Whether something is under way."""
        return self._last is not None and not self._last.done()

    def start(self, draw: Callable[[], X]) -> Callable[[], X]:
        """Carry something out after what was given before. Returns what waits for its result, or raises its error."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="drawing", daemon=True)
            self._thread.start()
        done: Future[X] = Future()
        self._last = done
        self._asked.put((done, draw))
        return done.result

    def wait(self) -> None:
        """Wait until nothing is under way; errors are kept for whoever asks for the result."""
        if self._last is not None:
            self._last.exception()

    def close(self, seconds: float) -> None:
        """Begin nothing more, and give what is under way some seconds to end."""
        with contextlib.suppress(queue.Empty):
            while (left := self._asked.get_nowait()) is not None:
                left[0].cancel()
        self._asked.put(None)
        if self._thread is not None:
            self._thread.join(seconds)

    def _work(self) -> None:
        while (asked := self._asked.get()) is not None:
            done, draw = asked
            try:
                done.set_result(draw())
            except BaseException as error:
                done.set_exception(error)
