"""Fixtures that several files share."""

from __future__ import annotations

import functools
import gc
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.commands import Said, caller
from tests.tiny import save_tiny_model

# One thread each, here and in the processes that tests start: the workers of pytest-xdist share the cores among them.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")

CHROMIUM = Path("/usr/bin/chromium")

# A shell that starts a job in the background lets it ignore Ctrl-C, and every process of a test would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


LONGEST = (
    "engine/ray", "engine/sharded", "parts/test_parts.py", "cli/test_cli.py", "comparing/test_runner.py", "training/test_resume.py",
    "integrations/test_trl.py", "engine/test_protocol.py", "training/test_every_method_trains.py", "engine/test_local.py",
    "training/test_loop.py", "lens/test_check.py", "test_own.py",
)  # fmt: skip
"""What takes longest goes first, so that no worker is left with it at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Workers get whole files, in this order."""
    items.sort(key=lambda item: _place(item.path))


@functools.cache
def _place(path: Path) -> int:
    here = Path(__file__).parent
    return next((i for i, name in enumerate(LONGEST) if path.is_relative_to(here / name)), len(LONGEST))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Where nothing else is asked for with ``--dist``, a file is one worker's."""
    from tests.spread import ByFile

    return ByFile(config, log) if config.getvalue("dist") == "load" else None


def pytest_collection_finish() -> None:
    """Thousands of tests and all that they import stay until the end: the garbage collector need not go through them."""
    gc.freeze()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an untrained Qwen3 of 22 thousand parameters with the character-level tokenizer."""
    return save_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Runs a command line in this process, in an empty folder, as on a terminal of 100 columns."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    return caller(capsys)


@pytest.fixture
def warm() -> Iterator[None]:
    """The processes of a comparison have imported everything already."""
    from tests.warm import warm_cells

    with warm_cells():
        yield


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium without a window."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright (pip install playwright)")
    if not CHROMIUM.exists():
        pytest.skip(f"needs {CHROMIUM} (apt-get install chromium)")
    with playwright.sync_playwright() as p:
        found = p.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"])
        yield found
        found.close()


@pytest.fixture(scope="module")
def benchmarks() -> Iterator[None]:
    """The scripts of the benchmarks, and what lies beside them, can be imported."""
    folder = str(Path(__file__).parents[1] / "benchmarks")
    sys.path.insert(0, folder)
    yield
    sys.path.remove(folder)
