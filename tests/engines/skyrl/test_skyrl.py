"""The tinker engine on SkyRL's jax server, on a CPU, with the embedded model: ``setup.sh`` makes the environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from policyopt.data import load_task
from policyopt.models.embedded import build_embedded
from tests.engines.skyrl.server import skyrl

ENVIRONMENT = Path(os.environ.get("POLICYOPT_SKYRL", "/nowhere"))
ROOT = Path(__file__).parents[3]

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(
        not (ENVIRONMENT / "sdk").is_dir(), reason="needs POLICYOPT_SKYRL (tests/engines/skyrl/setup.sh)"
    ),
]

LEARN = {"grpo": (8, 3e-3), "gspo": (8, 3e-3), "bapo": (8, 3e-3), "disco": (8, 2e-3), "treepo": (5, 3e-3)}
"""By method: optimiser steps, and the learning rate."""


def python(*line: str) -> str:
    """What a Python program prints that has the SDK of this server."""
    environ = os.environ | {"PYTHONPATH": f"{ENVIRONMENT / 'sdk'}:{ROOT}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *line], env=environ, capture_output=True, text=True, timeout=1800, cwd=ROOT)
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def model() -> Path:
    return build_embedded(load_task("chain_sum", heldout=1))


@pytest.fixture(scope="module")
def url(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with skyrl(ENVIRONMENT, model, tmp_path_factory.mktemp("skyrl")) as address:
        yield address


def test_weights_gradients_and_steps_are_those_of_the_local_engine(url: str, model: Path, tmp_path: Path) -> None:
    found = json.loads(
        python(str(Path(__file__).with_name("agree.py")), url, str(model), str(tmp_path)).splitlines()[-1]
    )
    print(json.dumps(found, indent=1))
    assert set(found) == {"grpo", "gspo", "bapo", "disco", "treepo"}
    for method, distances in found.items():
        adapters = distances.pop("adapters")
        assert max(distances.values()) < 1e-3, (method, distances)
        assert adapters < 1e-2, (method, "of a learning rate")


@pytest.mark.parametrize("method", LEARN)
def test_methods_learn(url: str, tmp_path: Path, method: str) -> None:
    steps, lr = LEARN[method]
    out = tmp_path / "run"
    line = (
        f"train {method} --engine tinker --base-url {url} --adapters.rank 8 --optim.lr {lr} --steps {steps} --batch 64"
    )
    line += f" --eval.prompts 64 --eval.samples 0 --eval.every 0 --out {out}"
    python("-m", "policyopt", *line.split())
    summary = json.loads((out / "summary.json").read_text())
    before, after = (summary[when]["accuracy"] for when in ("before", "after"))
    print(f"{method}: {before:.3f} -> {after:.3f} in {steps} steps, {summary['seconds'] / steps:.1f} s a step")
    assert after > before + 0.1
    assert (out / "model" / "adapter_model.safetensors").is_file()
