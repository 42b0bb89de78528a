"""The script for a large card runs before there is one: each of its parts on a CPU, at a size that takes a moment."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from policyopt.engine.local.fixed import Step

FOLDER = Path(__file__).parents[1] / "benchmarks" / "gpu"


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, ModuleType]]:
    """The modules beside the script, as it finds them."""
    monkeypatch.syspath_prepend(str(FOLDER))
    yield {name: importlib.import_module(name) for name in ("gpu_steps", "equal")}
    for name in ("gpu_steps", "equal"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_engine_is_equal_to_plain_transformers(parts: dict[str, ModuleType], dtype: torch.dtype) -> None:
    equal = parts["equal"]
    found = equal.compared("cpu", dtype, equal.SMALL)
    assert found["wrong"] == [] and found["gradient"] > 0
    assert {*found["ways"]} == {*parts["gpu_steps"].WAYS} and all(w["tokens/s"] > 0 for w in found["ways"].values())


def test_a_wrong_gradient_is_found(parts: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch) -> None:
    equal = parts["equal"]
    plain = equal.plain_gradient
    monkeypatch.setattr(equal, "plain_gradient", lambda *a: {n: 1.1 * g for n, g in plain(*a).items()})
    assert equal.compared("cpu", torch.float32, equal.SMALL)["wrong"] == ["gradient"]


def test_a_wrong_way_of_decoding_is_found(parts: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch) -> None:
    equal, step = parts["equal"], Step.__call__
    monkeypatch.setattr(Step, "__call__", lambda *a: 1.5 * step(*a))
    found = equal.compared("cpu", torch.float32, equal.SMALL)
    assert found["wrong"] == ["token by token"], "it differs from the others"


def test_a_workload_is_run_by_both_in_turn(parts: dict[str, ModuleType]) -> None:
    speed = parts["gpu_steps"]
    assert {name: w.minibatches * w.passes for name, w in speed.WORKLOADS.items()} == {
        "W1": 1, "W2": 1, "W3": 1, "W4": 1, "W5": 4,
    }  # fmt: skip
    lengths = speed.WORKLOADS["W2"].lengths
    assert max(lengths) == 512 and 120 < sum(lengths) / len(lengths) < 180
    small = speed.WORKLOADS["W5"].dry()
    found = speed.compared("W5", small, "cpu", torch.float32, 0)
    assert found["turns"] == 1 and found["ours over bare"]["step"] > 0
    tokens = sum(small.lengths) * 2  # steps
    assert found["passes"] == {"policy with gradient": 2 * tokens, "reference": tokens}, "no pass more than the epochs"


@pytest.mark.heavy
def test_the_whole_script_runs_dry(tmp_path: Path) -> None:
    done = subprocess.run(
        [str(FOLDER / "run.sh"), "--dry", str(tmp_path)], env=os.environ | {"PYTHON": sys.executable}, capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert {"machine.json", "equal.json", "speed.json", "profile.json"} <= {p.name for p in tmp_path.iterdir()}
    assert {*json.loads((tmp_path / "speed.json").read_text())} == {"W1", "W2", "W3", "W4", "W5"}
