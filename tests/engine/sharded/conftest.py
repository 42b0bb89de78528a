"""Fixtures of the tests on two ranks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.engine.sharded.pair import Pair, pair_of


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Two processes that stay for the whole session."""
    with pair_of(tmp_path_factory.mktemp("pair") / "meeting") as found:
        yield found
