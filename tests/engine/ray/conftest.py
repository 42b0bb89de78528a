"""One Ray for all tests of the engine, and one engine of a trainer and two samplers that most of them share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray", reason="needs ray (pip install 'policyopt[ray]')")

from policyopt.engine import Model, Models
from policyopt.engine.ray import open_engine
from policyopt.engine.ray.cluster import Connection
from policyopt.engine.settings import Cluster
from policyopt.methods.group.grpo import grpo

OPTIMISER = {"lr": 3e-3}


@pytest.fixture(scope="session")
def cluster() -> Iterator[Connection]:
    """A Ray of the tests' own, with places for five processes."""
    connection = Connection(Cluster(trainers=2, samplers=3))
    yield connection
    connection.close()


@pytest.fixture(scope="session")
def models(tiny_model: Path) -> Models:
    return Models(Model(str(tiny_model), {"device": "cpu"}))


@pytest.fixture(scope="module")
def engine(cluster: Connection, models: Models) -> Iterator[Any]:
    opened = open_engine(models, grpo(group_size=4), Cluster(samplers=2), **OPTIMISER)
    yield opened
    opened.close()
