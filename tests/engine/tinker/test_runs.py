"""Whole runs on a Tinker server of this library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from policyopt.engine.settings import Server
from policyopt.errors import UserError
from policyopt.methods.critic.ppo import ppo
from policyopt.methods.group.grpo import grpo
from policyopt.models.adapters import LoRA
from policyopt.models.load import load_policy
from policyopt.training.config import Evaluation, TrainConfig
from policyopt.training.run import run
from tests.engine.tinker.conftest import SECRET
from tests.runs import lines, power_cut, tiny_run
from tests.tiny import write_task


def configured(out: Path, model: Path, url: str, **more: Any) -> TrainConfig:
    task = write_task(out.parent / "task")
    settings: dict[str, Any] = {"steps": 4, "batch": 16, "eval": Evaluation(every=0, prompts=3, samples=0)} | more
    recipe = settings.pop("recipe", grpo(group_size=4, kl_coef=0.04))
    far: dict[str, Any] = {"engine": "tinker", "tinker": Server(base_url=url), "adapters": LoRA(rank=4)}
    return tiny_run(out, model, task, recipe, **far, **settings)


def test_a_run_that_dies_goes_on_with_the_prompts_that_it_would_have_had(
    tiny_model: Path, url: str, tmp_path: Path
) -> None:
    whole = run(configured(tmp_path / "whole", tiny_model, url, staleness=1), quiet=True).out
    config = configured(tmp_path / "parts", tiny_model, url, staleness=1)
    with power_cut(after=3):  # the last checkpoint is of step 2
        run(config, quiet=True)
    moved = url.replace("127.0.0.1", "localhost")  # a server may come back at another address
    config = configured(tmp_path / "parts", tiny_model, moved, staleness=1)
    parts = run(config, resume=tmp_path / "parts", quiet=True).out

    def asked(out: Path) -> list[tuple[int, str]]:
        return [(row["step"], row["id"]) for row in lines(out / "samples.jsonl") if row["phase"] == "train"]

    assert asked(parts) == asked(whole)
    assert [row["step"] for row in lines(parts / "metrics.jsonl")] == [0, 1, 2, 3, 4]
    for mine, theirs in zip(lines(parts / "metrics.jsonl"), lines(whole / "metrics.jsonl"), strict=True):
        assert mine.get("reward/mean") == pytest.approx(theirs.get("reward/mean"), abs=0.2)
        assert mine.get("entropy") is None, "no number where the protocol has none"
        assert mine.get("mismatch/max", 0.0) < 1e-3
    loaded = load_policy(str(parts / "model"), device="cpu")
    assert loaded.begun
    left = [p for p in parts.rglob("*") if p.is_file() and SECRET.encode() in p.read_bytes()]
    assert left == [], "the key is written nowhere"


def test_a_method_that_asks_for_more_is_refused_by_name(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"ppo asks for what the engine 'tinker' does not have: .*'critic' \("):
        run(configured(tmp_path / "run", tiny_model, "http://127.0.0.1:9", recipe=ppo()), quiet=True)
    assert not (tmp_path / "run").exists()


def test_a_run_without_a_server_leaves_no_folder(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nobody answers there"):
        run(configured(tmp_path / "run", tiny_model, "http://127.0.0.1:9"), quiet=True)
    assert not (tmp_path / "run").exists()
