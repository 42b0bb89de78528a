"""Runs of the engine ``ray`` whose processes are killed at random; what a kill of each kind does alone is in ``test_ray.py``."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="needs ray (pip install 'policyopt[ray]')")

BENCHMARK = Path(__file__).parents[3] / "benchmarks" / "kills.py"


@pytest.mark.heavy
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_twenty_rounds_of_kills_lose_and_leave_nothing() -> None:
    spec = importlib.util.spec_from_file_location("kills", BENCHMARK)
    assert spec is not None and spec.loader is not None
    kills = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(kills)
    kills.main(["--rounds", "20"])
