"""What several tests of the command line share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where commands of this process keep what they have found out: nothing yet."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("POLICYOPT_CACHE", str(folder))
    return folder
