"""Fixtures that several files share."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.tiny import save_tiny_model

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an untrained Qwen3 of 22 thousand parameters with the character-level tokenizer."""
    return save_tiny_model(tmp_path_factory.mktemp("tiny") / "model")
