"""The runs of a grid: as many at once as the machine holds, each in a process of its own, gone on with after any end."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from policyopt.comparing.cells import STOPPED, run_cell
from policyopt.comparing.grid import Cell, Grid, carries, digest
from policyopt.errors import UserError
from policyopt.files import Malformed, parse_json, write_whole
from policyopt.judging.modules import import_path
from policyopt.judging.pool import processors
from policyopt.training.config import TrainConfig
from policyopt.training.logging import RunRecord, disk_errors, read_run, read_summary

PLAN, CELLS, LOGS, START, LOCK = "plan.json", "cells", "logs", "start", "compare.lock"
"""What lies in the folder of a comparison: the grid, a folder for each run, what each process said, and the scores of the start."""
NEED = 1 << 30
"""Bytes of memory of a run beside its model."""
TIMES = 8
"""How often a model is held in training: weights, gradient, moments of Adam, a reference, activations."""


@dataclass
class Progress:
    """How far the cells are."""

    total: int
    done: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    """Why, by folder."""
    running: dict[str, tuple[Cell, float]] = field(default_factory=dict)
    """Cell and share done, by folder."""


Tell = Callable[[Progress], None]


@contextmanager
def held(out: Path) -> Iterator[None]:
    """Hold the folder of a comparison, which no other process may fill meanwhile."""
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    lock = FileLock(out / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(f"--out {out}: a comparison is going on there; wait for it, or end it first") from None
    try:
        yield
    finally:
        lock.release()


def carry_out(grid: Grid, out: Path, *, jobs: int | None = None, tell: Tell = lambda _: None) -> dict[str, str]:
    """Run what is not finished yet of a grid. Returns the cells that did not end, by folder, and why.

    A cell that fails is reported and leaves the others alone; asked for again, it is tried again. Ctrl-C and SIGTERM ask all
    cells to save and stop; the same command goes on with them, to the same bits.
    """
    opening = grid.opening()
    progress = Progress(len(grid.contenders) * len(grid.seeds))
    with crew(opening, out, jobs) as (who, at_once):
        write_whole(out / PLAN, json.dumps(grid.to_dict()))
        run_all(who, opening, out, at_once, progress, tell)
        run_all(who, following(grid, out), out, at_once, progress, tell)
    return progress.failed


def summary_of(cell: Cell, out: Path) -> dict[str, Any]:
    """What ``summary.json`` of a cell holds; nothing where it has not come to its end."""
    return read_summary(out / CELLS / cell.folder / "summary.json")


def following(grid: Grid, out: Path) -> list[Cell]:
    """The cells of a grid whose budget its opening cells say, as far as these are finished."""
    return grid.following({c.seed: s for c in grid.opening() if (s := summary_of(c, out))})


def finished(cells: Sequence[Cell], out: Path) -> dict[tuple[str, int], RunRecord]:
    """The runs of those cells that have come to their end, by contender and seed."""
    return {(c.contender, c.seed): read_run(out / CELLS / c.folder) for c in cells if summary_of(c, out)}


@contextmanager
def crew(cells: Sequence[Cell], out: Path, jobs: int | None) -> Iterator[tuple[Crew, int]]:
    """Who runs cells into a folder, which nobody else may fill meanwhile, and how many at once."""
    with held(out), disk_errors(out):
        for name in (CELLS, LOGS, START):
            (out / name).mkdir(exist_ok=True)
        threads, at_once = machine([c.config for c in cells], out, jobs)
        if any(carries(c.config) for c in cells):
            yield Alone(out), 1
        else:
            with Forked(out, threads) as forked:
                yield forked, at_once


def machine(configs: Sequence[TrainConfig], out: Path, jobs: int | None) -> tuple[int, int]:
    """Threads of a run, and how many runs at once: one for each core where there is memory for it, one where a GPU is used.

    The threads are those of the first time, because sums in another order are other bits.
    """
    path = out / "machine.json"
    cores = processors()
    fitting = free_memory() // max(map(memory_of, configs))
    most = 1 if any(map(uses_gpu, configs)) else max(1, min(cores, fitting))
    jobs = min(most, len(configs)) if jobs is None else jobs
    try:
        threads = int(parse_json(path.read_text())["threads"])
    except (OSError, Malformed, KeyError, TypeError, ValueError):
        threads = max(1, cores // jobs)
        write_whole(path, json.dumps({"threads": threads, "cores": cores}))
    return threads, jobs


def uses_gpu(config: TrainConfig) -> bool:
    """Whether the runs share one device."""
    import torch

    return config.device.startswith("cuda") or (config.device == "auto" and torch.cuda.is_available())


def memory_of(config: TrainConfig) -> int:
    """About how many bytes a run takes."""
    folder = Path(config.model)
    size = sum(f.stat().st_size for f in folder.glob("*.safetensors")) if folder.is_dir() else 0
    return NEED + TIMES * size


def free_memory() -> int:
    """Bytes that are free, as far as the system says."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(x.split()[1]) << 10 for x in lines if x.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        return 1 << 62


def start_of(cell: Cell, out: Path) -> Path | None:
    """Where the scores of the start lie that a cell shares with all that begin as it does: same model, questions and random
    numbers. ``None`` for a recipe whose evaluation is of its own."""
    config, recipe = cell.config, cell.config.recipe
    if "sampler" not in recipe.source.services:
        return None
    plain = config.to_dict()
    shared = (
        "model", "task", "columns", "eval_task", "judge", "judge_options", "prior", "prompting", "max_tokens", "seed", "eval", "dtype",
        "device", "lora", "adapters", "attention", "long_prompts", "sampler", "engine", "judging",
    )  # fmt: skip
    own = {"decode": plain["recipe"].get("decode"), "probes": plain["recipe"].get("probes")}
    return out / START / f"{digest({**{k: plain[k] for k in shared}, **own})}.json"


# Crews ---------------------------------------------------------------------------------------------------------------


class Crew:
    """Who runs cells."""

    def __init__(self, out: Path) -> None:
        self.out = out

    def begin(self, cell: Cell) -> None:
        """Begin a cell."""
        raise NotImplementedError

    def ended(self, seconds: float) -> list[tuple[str, int]]:
        """The folders of cells that have ended since, and their exit codes; waits so long for one at most."""
        raise NotImplementedError

    def stop(self, number: int) -> None:
        """Ask all that run to stop."""
        raise NotImplementedError


class Alone(Crew):
    """This process, one cell after another: for what lives in a Python session alone."""

    def begin(self, cell: Cell) -> None:
        self._last = cell.folder
        try:
            if not run_cell(cell.config, self.out / CELLS / cell.folder, start_of(cell, self.out)):
                raise KeyboardInterrupt
            self._code = 0
        except UserError as error:
            self._code = 2
            (self.out / LOGS / f"{cell.folder}.log").write_text(str(error), "utf-8")

    def ended(self, seconds: float) -> list[tuple[str, int]]:
        return [(self._last, self._code)]

    def stop(self, number: int) -> None:
        pass


class Forked(Crew):
    """A process that forks for every cell (:mod:`policyopt.comparing.cells`); it starts with the first that is to be run."""

    def __init__(self, out: Path, threads: int) -> None:
        super().__init__(out)
        self._threads = threads
        self._read = b""

    @cached_property
    def _process(self) -> subprocess.Popen[bytes]:
        env = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(self._threads))
        code = "import json, sys; sys.path[:] = json.loads(sys.argv[1])\nfrom policyopt.comparing.cells import main; main()"
        return subprocess.Popen(
            [sys.executable, "-c", code, json.dumps(import_path())], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env,
            start_new_session=True,
        )  # fmt: skip

    def __enter__(self) -> Forked:
        return self

    def __exit__(self, *_: object) -> None:
        if "_process" in vars(self):
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait()

    def begin(self, cell: Cell) -> None:
        folder = self.out / CELLS / cell.folder
        log = self.out / LOGS / f"{cell.folder}.log"
        log.unlink(missing_ok=True)
        config = cell.config.to_dict()
        start = start_of(cell, self.out)
        where = {"folder": str(folder), "log": str(log), "start": None if start is None else str(start)}
        self._send({"cell": {"config": config, **where}})

    def ended(self, seconds: float) -> list[tuple[str, int]]:
        assert self._process.stdout is not None
        file = self._process.stdout.fileno()
        if select.select([file], [], [], seconds)[0]:
            data = os.read(file, 1 << 16)
            if not data:
                raise UserError(
                    "the process that runs the cells has ended, perhaps for want of memory: take fewer --jobs"
                )
            *lines, self._read = (self._read + data).split(b"\n")
            found = [json.loads(line) for line in lines]
            return [(Path(x["folder"]).name, int(x["code"])) for x in found]
        return []

    def stop(self, number: int) -> None:
        self._send({"signal": number})

    def _send(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message).encode() + b"\n")
        self._process.stdin.flush()


def run_all(who: Crew, cells: Sequence[Cell], out: Path, jobs: int, progress: Progress, tell: Tell) -> None:
    """Run those of some cells that are not finished, so many at once."""
    waiting = []
    for cell in cells:
        if summary_of(cell, out):
            progress.done += 1
        else:
            waiting.append(cell)
    waiting.reverse()
    asked, end = 0, KeyboardInterrupt()
    while waiting or progress.running:
        while waiting and len(progress.running) < jobs and not asked:
            cell = waiting.pop()
            progress.running[cell.folder] = (cell, 0.0)
            who.begin(cell)
        if asked and not progress.running:
            raise end
        tell(progress)
        try:
            ended = who.ended(0.5)
        except KeyboardInterrupt as error:
            asked, end = asked + 1, error
            error.add_note(f"the same command goes on with what is in {out}")
            who.stop(signal.SIGTERM if asked == 1 else signal.SIGKILL)
            continue
        for folder, code in ended:
            progress.running.pop(folder)
            if code == 0:
                progress.done += 1
            elif not (code == STOPPED and asked):
                progress.failed[folder] = why(out, folder, code)
        for folder, (cell, _) in progress.running.items():
            progress.running[folder] = (cell, share(out / CELLS / folder, cell.config))
    tell(progress)


def why(out: Path, folder: str, code: int) -> str:
    """Why a cell did not come to its end: the last line that it said."""
    log = out / LOGS / f"{folder}.log"
    try:
        lines = [x for x in log.read_text(errors="replace").splitlines() if x.strip()]
    except OSError:
        lines = []
    if code < 0:
        said = f"ended by {signal.Signals(-code).name}"
        return f"{said}, perhaps for want of memory: take fewer --jobs" if -code == signal.SIGKILL else said
    return f"{lines[-1].removeprefix('policyopt: ') if lines else f'exit code {code}'} (all of it in {log})"


def share(folder: Path, config: TrainConfig) -> float:
    """How much of a run is done, by its log."""
    try:
        with (folder / "metrics.jsonl").open("rb") as file:
            file.seek(0, os.SEEK_END)
            size = file.tell()
            file.seek(max(0, size - 16384))
            line = file.read().rsplit(b"\n", 2)[-2]
            step = json.loads(line)["step"]
    except (OSError, IndexError, ValueError, KeyError, TypeError):
        return 0.0
    stopping = config.stopping
    if stopping.tokens is None and stopping.seconds is None:
        return min(1.0, step / config.steps)
    return 0.5 if step else 0.0
