"""Fixtures of several pages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from policyopt.engine.local import LocalSampler
from tests.batches import TinyPolicy
from tests.tiny import load_tiny


@pytest.fixture(scope="module")
def sampler(tiny_model: Path) -> LocalSampler:
    return LocalSampler.of(load_tiny(tiny_model))


@pytest.fixture(scope="module")
def endless(tiny_model: Path) -> LocalSampler:
    """A sampler whose responses all run to their budget."""
    found = LocalSampler.of(load_tiny(tiny_model))
    found.eos = frozenset()
    return found


@pytest.fixture(params=[0, 1])
def tiny(request: Any) -> TinyPolicy:
    return TinyPolicy(request.param)
