"""Programs that are started from a process which has imported everything, where a test is not about how they start."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any
from unittest import mock

from policyopt.comparing import runner
from tests.runs import PROCESSES


def _carried_out(words: Sequence[str], folder: str, env: Mapping[str, str], reads: Any, writes: Any) -> None:
    """What ``python -c CODE ...`` does, with pipes as its standard input and output."""
    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    for number, end in enumerate((reads, writes)):
        os.dup2(end.fileno(), number)
        end.close()
    sys.argv = ["-c", *words[3:]]
    exec(words[2], {"__name__": "__main__"})


class Program:
    """The part of ``subprocess.Popen`` that :class:`policyopt.comparing.runner.Forked` uses."""

    def __init__(self, words: Sequence[str], *, env: Mapping[str, str], **pipes: Any) -> None:
        reads, mine = PROCESSES.Pipe(duplex=False)
        heard, writes = PROCESSES.Pipe(duplex=False)
        self._process = PROCESSES.Process(target=_carried_out, args=(words, os.getcwd(), dict(env), reads, writes))
        self._process.start()
        reads.close()
        writes.close()
        self.stdin, self.stdout = (os.fdopen(os.dup(e.fileno()), m) for e, m in ((mine, "wb"), (heard, "rb")))
        mine.close()
        heard.close()

    def wait(self) -> int | None:
        self._process.join()
        self.stdout.close()
        return self._process.exitcode


@contextlib.contextmanager
def warm_cells() -> Iterator[None]:
    """Comparisons begin at once meanwhile, in processes of their own as ever."""
    with mock.patch.object(runner, "subprocess", SimpleNamespace(Popen=Program, PIPE=subprocess.PIPE)):
        yield
