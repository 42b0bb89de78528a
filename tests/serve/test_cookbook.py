"""Loops of the tinker-cookbook, as they come from the index, train here."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.serve.cookbook import ARITHMETIC, MODEL, prepare
from tests.serve.server import running

PYTHON = os.environ.get("COOKBOOK_PYTHON") or (
    sys.executable if importlib.util.find_spec("tinker_cookbook") is not None else None
)
"""An interpreter that has the package ``tinker-cookbook``."""


@pytest.mark.heavy
@pytest.mark.skipif(PYTHON is None, reason="needs tinker-cookbook[math-rl]; COOKBOOK_PYTHON may name its interpreter")
def test_recipes_of_the_cookbook_run_unchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert PYTHON is not None

    def run(*line: str) -> None:
        env = {**os.environ, "TINKER_API_KEY": "tml-any", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        env.pop("PYTHONPATH", None)
        done = subprocess.run([PYTHON, *line], capture_output=True, text=True, timeout=600, env=env)  # type: ignore[list-item]
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]

    def logged(folder: str) -> list[dict[str, float]]:
        return [json.loads(line) for line in (tmp_path / folder / "metrics.jsonl").read_text().splitlines()]

    with running(MODEL, tmp_path / "state") as url:
        common = [f"model_name={MODEL}", f"base_url={url}", "lora_rank=8"]
        supervised = [
            "-m",
            "tinker_cookbook.recipes.sl_loop",
            *common,
            "log_path=sl",
            "batch_size=8",
            "learning_rate=1e-2",
        ]
        run(*supervised, "max_steps=3", "save_every=2")
        losses = [row["train_mean_nll"] for row in logged("sl")]
        assert len(losses) == 3
        assert losses[-1] < losses[0] - 0.5
        run(
            "-m", "tinker_cookbook.recipes.rl_loop", *common, "log_path=rl", "batch_size=4", "group_size=4", "max_steps=2",
            "max_tokens=16", "loss_fn=importance_sampling",
        )  # fmt: skip
        assert len(logged("rl")) == 2
        run("-c", ARITHMETIC, MODEL, url)
        steps = [row for row in logged("ar") if "optim/lr" in row]
        assert len(steps) == 2
        for row in steps:
            assert row["grad_norm"] > 0
            assert math.isfinite(row["kl_policy_base"])
            # What the sampler said of its tokens is what the trainer says of them.
            assert abs(row["optim/kl_sample_train_v1"]) < 1e-5
