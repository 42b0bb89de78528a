"""Contenders side by side: each has a process, and one step of each alternates."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from speed.workloads import Workload, make_model

RUN = Path(__file__).parents[1] / "run.py"
WARM = 2
"""Steps that do not count: allocators, caches and the first use of every kernel."""

Row = Mapping[str, float]
Say = Callable[[str], None]


class Lost(Exception):
    """A contender has ended before its time."""


@dataclass
class Contender:
    """A process that carries out workloads; see :mod:`speed.contender`."""

    name: str
    log: Path
    script: Path = RUN
    """Carries it out, as ``script --contender name``."""

    def __post_init__(self) -> None:
        environment = os.environ | {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
        with self.log.open("w") as said:
            self.process = subprocess.Popen(
                [sys.executable, str(self.script), "--contender", self.name], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=said, text=True, env=environment, start_new_session=True,
            )  # fmt: skip

    def ask(self, message: Mapping[str, Any], answered: bool = True) -> dict[str, Any]:
        """Send, and wait for the answer. Raises :class:`Lost` with the reason where there is none."""
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(message) + "\n")
            self.process.stdin.flush()
        except OSError:
            raise Lost(f"the process has ended ({self.process.poll()})") from None
        if not answered:
            return {}
        line = self.process.stdout.readline()
        found = json.loads(line) if line else {"error": f"the process has ended ({self.process.wait()})"}
        if "error" in found:
            raise Lost(found["error"])
        return found

    def close(self) -> None:
        """End the process: by the end of what it reads, or else by force."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.close()
        except OSError:
            pass
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)  # what it has started too
            self.process.wait()


@contextmanager
def contenders(names: Sequence[str], script: Path = RUN) -> Iterator[dict[str, Contender]]:
    """The processes, and their end."""
    with tempfile.TemporaryDirectory() as logs:
        running = {name: Contender(name, Path(logs) / f"{name}.log", script) for name in names}
        try:
            yield running
        finally:
            for contender in running.values():
                contender.close()


@dataclass
class Measured:
    """What a workload took."""

    workload: Workload
    rows: dict[str, list[Row]] = field(default_factory=dict)
    """Of every contender, the steps that count."""
    begun: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What each said when it had loaded the model."""
    lost: dict[str, str] = field(default_factory=dict)
    """Why a contender did not come to the end."""

    def median(self, name: str, key: str) -> float | None:
        """Over steps; ``None`` where a contender does not say."""
        values = [row[key] for row in self.rows.get(name, ()) if key in row]
        return statistics.median(values) if values else None

    def ratio(self, name: str, other: str, key: str = "step") -> float | None:
        """The median of the ratios of steps that ran one after the other."""
        return paired(self.rows.get(name, ()), self.rows.get(other, ()), key)

    def above(self, name: str) -> float | None:
        """MiB at the peak above process, models, gradients and moments."""
        peak = self.median(name, "peak")
        return None if peak is None else peak - self.begun[name]["process"] - self.begun[name]["held"]


def paired(mine: Sequence[Row], theirs: Sequence[Row], key: str = "step") -> float | None:
    """The median of ratios round by round, so that a machine whose speed drifts does not spoil it; of the rounds that both
    have done."""
    # One of them may have ended earlier.
    ratios = [a[key] / b[key] for a, b in zip(mine, theirs)]
    return statistics.median(ratios) if ratios else None


def measure(
    workload: Workload, running: dict[str, Contender], rounds: int, dtype: str, say: Say, warm: int = WARM
) -> Iterator[Measured]:
    """Load, warm up and alternate; yields what is known after every round, so that whoever stops early has that. A contender
    that is lost is said, and the others go on without it."""
    measured = Measured(workload)
    alive = dict(running)

    def asked(name: str, message: Mapping[str, Any], answered: bool = True) -> dict[str, Any] | None:
        try:
            return alive[name].ask(message, answered)
        except Lost as error:
            measured.lost[name] = str(error)
            say(f"{workload.name}: {name} is lost: {error}")
            running.pop(name).close()
            alive.pop(name)
            return None

    with tempfile.TemporaryDirectory() as scratch:
        folder = make_model(workload, Path(scratch) / "model")
        for name in list(alive):
            say(f"{workload.name}: {name} loads")
            begun = asked(name, {"load": workload.to_dict(), "folder": folder, "dtype": dtype})
            if begun is not None:
                measured.begun[name] = begun
        for number in range(warm + rounds):
            names = list(alive)
            turn = number % max(1, len(names))
            for name in names[turn:] + names[:turn]:  # nobody is always the first
                row = asked(name, {"step": number})
                if row is None:
                    continue
                said = f"{'warm-up' if number < warm else f'round {number - warm + 1} of {rounds}'}"
                say(f"{workload.name}: {said}: {name} {row['step']:.3f} s, peak {row['peak']:,.0f} MiB")
                if number >= warm:
                    row["rest"] = row["step"] - row["rollout"]
                    measured.rows.setdefault(name, []).append(row)
            if number >= warm:
                yield measured
        for name in list(alive):
            asked(name, {"unload": True}, answered=False)
    yield measured
