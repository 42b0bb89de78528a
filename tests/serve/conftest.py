"""A server that several tests share, and clients of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.serve.server import here

NEEDED = ("tinker", "starlette", "uvicorn")
"""The extra ``[tinker]``."""

# Without it the tests that need it are not there; those of the adapters are.
collect_ignore_glob = [] if all(map(find_spec, NEEDED)) else ["test_[!s]*.py"]


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINKER_API_KEY", "tml-any")
    monkeypatch.setenv("TINKER_TELEMETRY", "0")


@pytest.fixture(scope="module")
def served(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Any]]:
    """The address and the inside of a server of the tiny model in float64."""
    with here(tiny_model, tmp_path_factory.mktemp("served"), dtype="float64") as found:
        yield found


@pytest.fixture
def client(served: tuple[str, Any]) -> Iterator[Any]:
    import tinker

    made = tinker.ServiceClient(base_url=served[0])
    yield made
    with suppress(RuntimeError):  # it is closed already
        made.holder.close()  # else it looks for its server as long as the process lives
