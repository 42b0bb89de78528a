"""The runs of a grid: carried out once, the start shared, gone on with after any end, a failure kept to its cell."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from policyopt.comparing.cells import STOPPED, run_cell
from policyopt.comparing.grid import Budget, Cell
from policyopt.comparing.runner import CELLS, LOGS, PLAN, START, carry_out, machine, memory_of, share, start_of, why
from policyopt.errors import UserError
from policyopt.training.logging import read_run
from tests.comparing.grids import asked_grid, small
from tests.runs import PROCESSES


def until(ready: Callable[[], bool], what: str, seconds: float) -> None:
    """Wait for something."""
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, f"waited for {what}"
        time.sleep(0.05)


def metrics(out: Path, cell: Cell) -> list[dict[str, Any]]:
    """What a cell logged, without what differs from run to run."""
    rows = read_run(out / CELLS / cell.folder).metrics
    return [{k: v for k, v in row.items() if not k.startswith("time/") and k != "tokens_per_s"} for row in rows]


@pytest.fixture(scope="module")
def done(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A grid that was carried out."""
    out = tmp_path_factory.mktemp("grid") / "out"
    assert carry_out(asked_grid(tiny_model), out, jobs=2) == {}
    return out


def test_every_cell_is_a_run_without_its_weights(done: Path, tiny_model: Path) -> None:
    cells = asked_grid(tiny_model).opening()
    assert {p.name for p in (done / CELLS).iterdir()} == {c.folder for c in cells}
    for cell in cells:
        folder = done / CELLS / cell.folder
        assert read_run(folder).summary["steps"] == 4
        assert not {"checkpoints", "model", "tensorboard"} & {p.name for p in folder.iterdir()}
    assert json.loads((done / PLAN).read_text())["seeds"] == [0, 1]


def test_the_start_is_evaluated_once_for_a_seed(done: Path, tiny_model: Path) -> None:
    cells = asked_grid(tiny_model).opening()
    assert len(list((done / START).glob("*.json"))) == 2
    for seed in (0, 1):
        mine = [c for c in cells if c.seed == seed]
        assert len({start_of(c, done) for c in mine}) == 1
        before = [read_run(done / CELLS / c.folder).summary["before"] for c in mine]
        samples = [[s for s in read_run(done / CELLS / c.folder).samples if s["phase"] == "before"] for c in mine]
        assert before[0] == before[1] and samples[0] == samples[1] and len(samples[0]) == 6


def test_a_cell_is_the_run_that_training_makes(done: Path, tiny_model: Path, tmp_path: Path) -> None:
    """Sharing the start changes nothing of it."""
    cell = asked_grid(tiny_model).opening()[1]
    assert run_cell(cell.config, tmp_path / CELLS / cell.folder, None)
    assert metrics(done, cell) == metrics(tmp_path, cell)


def test_what_is_finished_is_not_run_again(done: Path, tiny_model: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in (done / CELLS).glob("*/*")}
    told: list[tuple[int, int]] = []
    assert carry_out(asked_grid(tiny_model), done, tell=lambda p: told.append((p.done, p.total))) == {}
    assert told[-1] == (4, 4)
    assert {p: p.stat().st_mtime_ns for p in (done / CELLS).glob("*/*")} == before


@pytest.mark.usefixtures("warm")
def test_a_failure_is_kept_to_its_cell_and_tried_again(tiny_model: Path, tmp_path: Path) -> None:
    grid = asked_grid(tiny_model)
    cells = grid.opening()
    folder = tmp_path / CELLS / cells[1].folder
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("model: [")
    failed = carry_out(grid, tmp_path, jobs=2)
    assert list(failed) == [cells[1].folder] and "config.yaml" in failed[cells[1].folder]
    (folder / "config.yaml").unlink()
    assert carry_out(grid, tmp_path) == {}


@pytest.mark.usefixtures("warm")
def test_the_first_one_says_what_the_others_may_use_up(tiny_model: Path, tmp_path: Path) -> None:
    grid = asked_grid(tiny_model, budget=Budget("tokens"))
    assert carry_out(grid, tmp_path) == {}
    tokens = {c.seed: read_run(tmp_path / CELLS / c.folder).summary["tokens"] for c in grid.opening()}
    for cell in grid.following({s: {"tokens": t} for s, t in tokens.items()}):
        summary = read_run(tmp_path / CELLS / cell.folder).summary
        assert summary["tokens"] >= tokens[cell.seed] > summary["tokens"] - 16 * 8
        assert "budget" in summary["stopped"]


def long(model: Path, out: Path) -> None:
    carry_out(asked_grid(model, steps=400), out, jobs=2)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_the_cells_end_with_what_started_them(number: signal.Signals, tiny_model: Path, tmp_path: Path) -> None:
    grid = asked_grid(tiny_model, steps=400)
    process = PROCESSES.Process(target=long, args=(tiny_model, tmp_path))
    process.start()
    cell = grid.opening()[0]
    log = tmp_path / CELLS / cell.folder / "metrics.jsonl"
    until(lambda: log.is_file() and log.read_text().count("\n") > 5, "the first steps", 90)
    os.kill(process.pid, number)
    process.join(60)
    lock = log.with_name("running.json")
    until(lambda: not lock.exists(), "the cells to end with what started them", 60)
    assert not (log.with_name("summary.json")).exists()
    stopped = log.read_text().count("\n")
    assert 5 < stopped < 400
    assert any(log.with_name("checkpoints").iterdir()), "what it had is saved"


def test_a_cell_that_goes_on_ends_like_one_that_was_never_stopped(tiny_model: Path, tmp_path: Path) -> None:
    cell = asked_grid(tiny_model, steps=12).opening()[0]
    whole, parts = tmp_path / "whole" / CELLS / cell.folder, tmp_path / "parts" / CELLS / cell.folder
    assert run_cell(cell.config, whole, None)
    log = parts / "metrics.jsonl"

    def stop() -> None:
        until(lambda: log.is_file() and log.read_text().count("\n") > 3, "some steps", 60)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop)
    thread.start()
    ended = run_cell(cell.config, parts, None)
    thread.join()
    if not ended:
        assert not (parts / "summary.json").exists()
        assert run_cell(cell.config, parts, None)
    assert metrics(tmp_path / "whole", cell) == metrics(tmp_path / "parts", cell)


def test_a_folder_takes_one_comparison_at_a_time(tiny_model: Path, tmp_path: Path) -> None:
    from policyopt.comparing.runner import held

    with held(tmp_path), pytest.raises(UserError, match="a comparison is going on there"):
        carry_out(asked_grid(tiny_model), tmp_path)


def test_threads_stay_those_of_the_first_time(tiny_model: Path, tmp_path: Path) -> None:
    configs = [small(tiny_model)] * 4
    threads, _ = machine(configs, tmp_path, 1)
    assert machine(configs, tmp_path, 8) == (threads, 8)


def test_the_memory_of_a_run_grows_with_its_model(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(bytes(1 << 20))
    assert memory_of(small(tmp_path)) - memory_of(small(tmp_path / "none")) == 8 << 20


def test_why_a_cell_failed_is_its_last_line(tmp_path: Path) -> None:
    (tmp_path / LOGS).mkdir()
    (tmp_path / LOGS / "cell.log").write_text("Traceback\n  ...\nValueError: bad\n\n")
    assert why(tmp_path, "cell", 1).startswith("ValueError: bad (all of it in ")
    assert why(tmp_path, "cell", -9).startswith("ended by SIGKILL, perhaps for want of memory")
    assert STOPPED not in (0, 1, 2)


def test_how_much_is_done_is_read_from_the_log(tiny_model: Path, tmp_path: Path) -> None:
    assert share(tmp_path, small(tiny_model)) == 0
    (tmp_path / "metrics.jsonl").write_text('{"step": 0}\n{"step": 1, "x": 2}\n{"st')
    assert share(tmp_path, small(tiny_model)) == 0.25
