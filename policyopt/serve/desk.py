"""The queue of what clients ask for, one thread that works it off, and the results until they are fetched."""

from __future__ import annotations

import base64
import json
import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from policyopt.files import write_whole
from policyopt.serve.drawing import Wanted
from policyopt.serve.refused import Refused, gone, unknown

KEPT = 3600.0
"""Seconds for which a result waits that nobody fetches, once the desk is full."""
FETCHED = 1024
"""Results that stay after they were fetched: an answer may be lost on its way."""
FETCHED_BYTES = 256 << 20
"""What those may take."""
HELD_BYTES = 2 << 30
"""What all that waits may take, requests and results."""

log = logging.getLogger(__name__)

Answer = dict[str, Any] | bytes
"""A JSON object, or a message of the protocol."""


@dataclass
class Job:
    """What a client asked for."""

    id: str
    work: Callable[[], Answer] | None
    """Works it out; None for draws, which are worked out together."""
    wanted: Any = None
    """The order of a draw."""
    weights: str | None = None
    """Of a draw, whose weights."""
    size: int = 0
    """Bytes of the request."""
    answer: Future[Answer] = field(default_factory=Future)
    since: float = field(default_factory=time.monotonic)

    @property
    def bytes(self) -> int:
        """What it takes: the request while it waits, then the result."""
        if not self.answer.done():
            return self.size
        answer = self.answer.result()
        return len(answer) if isinstance(answer, bytes) else 0

    def settle(self, answer: Answer) -> None:
        """Give the result."""
        if not self.answer.done():
            self.answer.set_result(answer)

    def fail(self, error: BaseException) -> None:
        """Give a reason in the place of a result, in the words of the protocol."""
        if isinstance(error, Refused):
            self.settle({"error": str(error), "category": "user" if error.status < 500 else "server"})
            return
        log.error("%s failed", self.id, exc_info=error)
        self.settle({"error": f"the server failed: {type(error).__name__}: {error}"[:1000], "category": "server"})


class Desk:
    """Takes jobs in, bounded; works them off in order in a thread of its own, draws from the same weights together."""

    def __init__(self, draw: Callable[[str, Sequence[Wanted], Callable[[], Sequence[Wanted]], Callable[[], bool]], None],
                 most: int) -> None:  # fmt: skip
        self._draw, self.most = draw, most
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._fetched: OrderedDict[str, Job] = OrderedDict()
        self._bytes = 0
        self._waiting: deque[Job] = deque()
        self._lock = threading.Condition()
        self.stopping = False
        self._thread = threading.Thread(target=self._work, name="policyopt-serve", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def stop(self) -> None:
        """End after the job that is being worked on; draws are cut short. What has no answer then is forgotten."""
        with self._lock:
            self.stopping = True
            self._lock.notify_all()
        self._thread.join()
        self._waiting.clear()
        for name in [n for n, job in self._jobs.items() if not job.answer.done()]:
            del self._jobs[name]

    # In and out -------------------------------------------------------------------------------------------------------

    def submit(self, job: Job) -> Job:
        """Take a job in; one that came before under the same id is the same. Raises
        :class:`~policyopt.serve.refused.Refused` (429) where the desk is full."""
        with self._lock:
            for known in (self._jobs, self._fetched):
                if job.id in known:
                    return known[job.id]
            self._make_room()
            self._jobs[job.id] = job
            self._waiting.append(job)
            self._lock.notify_all()
        return job

    def _make_room(self) -> None:
        if not self._full():
            return
        late = time.monotonic() - KEPT
        for name in [n for n, job in self._jobs.items() if job.answer.done() and job.since < late]:
            del self._jobs[name]
        if self._full():
            raise Refused(f"{len(self._jobs)} requests wait already, or for their results to be fetched", 429, 1)

    def _full(self) -> bool:
        return len(self._jobs) >= self.most or sum(j.bytes for j in self._jobs.values()) > HELD_BYTES

    def seen(self, name: str) -> Job | None:
        """A job that is here."""
        with self._lock:
            return self._jobs.get(name) or self._fetched.get(name)

    def find(self, name: str, known: Callable[[str], bool]) -> Job:
        """The job of a request. Raises :class:`~policyopt.serve.refused.Refused`: 410 where it is of a model or sampler that is
        ``known``, else 404."""
        if job := self.seen(name):
            return job
        if known(name):
            raise gone(
                f"the result of {name} is not here any more: it was fetched long ago, or the server was started anew"
            )
        raise unknown(f"request_id {name[:200]!r}: this server has no such request")

    def fetched(self, job: Job) -> None:
        """A result was handed out: it may go once others have been since."""
        with self._lock:
            if self._jobs.pop(job.id, None) is not None:
                self._fetched[job.id] = job
                self._bytes += job.bytes
                while len(self._fetched) > FETCHED or self._bytes > FETCHED_BYTES:
                    self._bytes -= self._fetched.popitem(last=False)[1].bytes

    # Work -------------------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while True:
            with self._lock:
                self._lock.wait_for(lambda: self._waiting or self.stopping)
                if self.stopping:
                    return
                job = self._waiting.popleft()
            try:
                if job.work is not None:
                    job.settle(job.work())
                else:
                    self._together(job)
            except BaseException as error:  # a thread that ends would leave every client waiting
                job.fail(error)

    def _together(self, job: Job) -> None:
        assert job.weights is not None
        weights = job.weights
        taken = [job]

        def take(some: Sequence[Job]) -> list[Wanted]:
            taken.extend(some)
            return [Wanted(j.wanted, j.settle, j.fail) for j in some]

        def more() -> list[Wanted]:
            with self._lock:  # whoever else waits is not kept waiting by those who come after
                if not self._waiting or any(j.weights != weights for j in self._waiting):
                    return []
                came = list(self._waiting)
                self._waiting.clear()
            return take(came)

        with self._lock:
            same = [j for j in self._waiting if j.weights == weights]
            self._waiting = deque(j for j in self._waiting if j.weights != weights)
        first = [Wanted(job.wanted, job.settle, job.fail), *take(same)]
        try:
            self._draw(weights, first, more, lambda: self.stopping)
        except BaseException as error:
            for each in taken:
                each.fail(error)

    # Across a restart --------------------------------------------------------------------------------------------------

    def write(self, path: Path) -> None:
        """Write the results that nobody has fetched."""
        done = [(j.id, j.answer.result()) for j in self._jobs.values() if j.answer.done()]
        rows = [[name, a if isinstance(a, dict) else base64.b64encode(a).decode()] for name, a in done]
        write_whole(path, json.dumps(rows))

    def read(self, path: Path) -> None:
        """Take the results back that :meth:`write` wrote; the file goes."""
        if not path.is_file():
            return
        for name, answer in json.loads(path.read_text()):
            job = Job(name, None)
            job.settle(answer if isinstance(answer, dict) else base64.b64decode(answer))
            self._jobs[name] = job
        path.unlink()
