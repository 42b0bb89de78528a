"""A server that several tests share, and clients of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

tinker = pytest.importorskip("tinker", reason="needs tinker (pip install 'policyopt[tinker]')")
pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from tests.serve.server import here  # noqa: E402


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
def client(served: tuple[str, Any]) -> Any:
    return tinker.ServiceClient(base_url=served[0])
