"""A server of the tiny model that several tests share, and engines on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from policyopt.engine import Model, Models, open_engine
from policyopt.engine.settings import Server
from policyopt.models.adapters import LoRA
from policyopt.recipe import Recipe

pytest.importorskip("tinker", reason="needs tinker (pip install 'policyopt[tinker]')")
pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from tests.serve.server import here

SECRET = "tml-a-secret-of-mine"


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINKER_API_KEY", SECRET)
    monkeypatch.setenv("TINKER_TELEMETRY", "0")


@pytest.fixture(scope="module")
def url(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with here(tiny_model, tmp_path_factory.mktemp("served"), token=SECRET) as (address, _):
        yield address


@pytest.fixture
def open_on(url: str, tiny_model: Path) -> Iterator[Callable[..., Any]]:
    """Opens the engine on the server for a recipe; all are closed at the end."""
    opened = []

    def on(recipe: Recipe, options: dict[str, Any] | None = None, **optimiser: Any) -> Any:
        policy = Model(str(tiny_model), {"lora": LoRA(rank=4)} | (options or {}))
        engine = open_engine("tinker", Models(policy), recipe, {"tinker": Server(base_url=url)}, **optimiser)
        opened.append(engine)
        return engine

    yield on
    for engine in opened:
        engine.close()
