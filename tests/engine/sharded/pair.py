"""Two processes of one gloo group, for tests: whatever is called is called in both at once."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import cloudpickle
import torch
import torch.distributed as dist

from policyopt.engine.sharded.crew import ALIKE
from policyopt.engine.sharded.rank import Rank
from tests.runs import PROCESSES


class Pair:
    """Calls functions in two processes, and is a :class:`~policyopt.engine.sharded.crew.Crew` of them."""

    size = 2

    def __init__(self, meeting: Path, size: int = 2) -> None:
        self.size = size
        self.pipes, self.processes = [], []
        for rank in range(size):
            mine, theirs = PROCESSES.Pipe()
            process = PROCESSES.Process(target=_serve, args=(theirs, rank, size, str(meeting)), daemon=True)
            process.start()
            theirs.close()
            self.pipes.append(mine)
            self.processes.append(process)

    def run(self, f: Callable[..., Any], *args: Any) -> list[Any]:
        """``f(*args)`` in both, by rank."""
        return self._told(("run", f, args))

    def call(self, name: str, *args: Any) -> list[Any]:
        return self._told(("call", name, args))

    def _told(self, what: Any) -> list[Any]:
        for pipe in self.pipes:
            pipe.send_bytes(cloudpickle.dumps(what))
        replies = []
        for rank, pipe in enumerate(self.pipes):
            assert pipe.poll(120), f"rank {rank} hangs"
            replies.append(cloudpickle.loads(pipe.recv_bytes()))
        for reply in replies:
            if isinstance(reply, BaseException):
                raise reply
        return replies

    def close(self) -> None:
        """The pair outlives the engines that tests make on it."""

    def end(self) -> None:
        for pipe in self.pipes:
            with contextlib.suppress(OSError):
                pipe.send_bytes(cloudpickle.dumps(None))
        for process in self.processes:
            process.join(10)
            if process.is_alive():
                process.kill()


def _serve(pipe: Any, rank: int, size: int, meeting: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=size, timeout=timedelta(seconds=60)
    )
    member = Rank()
    while (what := cloudpickle.loads(pipe.recv_bytes())) is not None:
        kind, f, args = what
        try:
            reply = f(*args) if kind == "run" else getattr(member, f)(*args)
        except ALIKE as error:
            reply = error
        except BaseException as error:
            reply = AssertionError(f"rank {rank}: {error!r}\n{traceback.format_exc()}")
        pipe.send_bytes(cloudpickle.dumps(reply))
    dist.destroy_process_group()


@contextlib.contextmanager
def pair_of(meeting: Path, size: int = 2) -> Iterator[Pair]:
    pair = Pair(meeting, size)
    try:
        yield pair
    finally:
        pair.end()
