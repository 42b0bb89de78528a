"""What a run leaves behind: the card of its model, and the model on the hub where that is asked for."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from policyopt.methods.clip.dapo import dapo
from policyopt.methods.group.grpo import grpo
from policyopt.training.card import card, shown
from policyopt.training.config import Evaluation, TrainConfig, config_from_yaml
from policyopt.training.run import run
from tests.hub import standing_in
from tests.runs import tiny_run
from tests.tiny import write_task

SUMMARY: dict[str, Any] = {
    "steps": 20, "stopped": "finished", "version": "1.2", "torch": "2.6",
    "before": {"accuracy": 0.25, "pass@4": 0.5, "length": 10.5, "n": 40, "lengths": [1]},
    "after": {"accuracy": 0.75, "pass@4": 0.9, "length": 12.0, "n": 40, "lengths": [1]},
}  # fmt: skip


@pytest.fixture
def make(tmp_path: Path, tiny_model: Path) -> Callable[..., TrainConfig]:
    task = write_task(tmp_path / "task")

    def of(**changes: Any) -> TrainConfig:
        short = {"steps": 2, "eval": Evaluation(every=1, prompts=2, samples=0)}
        return tiny_run(tmp_path / "run", tiny_model, task, **(short | changes))

    return of


def test_a_card_says_what_the_model_is_and_what_training_changed() -> None:
    config = TrainConfig(recipe=dapo(), model="Qwen/Qwen3-0.6B", task="openai/gsm8k:main", judge="number", steps=20)
    text = card("model", config, SUMMARY, [(0, 0.25), (10, 0.5), (20, 0.75)])
    found = ModelCard(text).data
    assert (found.base_model, found.datasets) == ("Qwen/Qwen3-0.6B", "openai/gsm8k")
    assert {"policyopt", "dapo", "arxiv:2503.14476"} <= set(found.tags)
    for line in (
        "On the same 40 held-out examples:",
        "| accuracy | 25.0\u00a0% | 75.0\u00a0% |",
        "| pass@4 | 50.0\u00a0% | 90.0\u00a0% |",
        "| length | 10.5 | 12 |",
        "- **Judge**: `number`",
        "- **Steps**: 20 of 128 responses, seed 0",
        "- **Written by**: policyopt 1.2, torch 2.6",
        "Held-out accuracy by step: 0: 25.0\u00a0%, 10: 50.0\u00a0%, 20: 75.0\u00a0%.",
    ):
        assert line in text.splitlines()
    assert "lengths" not in text
    recipe = yaml.safe_load(text.partition("```yaml\n")[2].partition("```")[0])
    assert recipe == json.loads(json.dumps(config.recipe.to_dict()))
    assert "@misc{dapo, eprint = {2503.14476}" in text


def test_a_card_tells_nothing_of_the_machine(tmp_path: Path) -> None:
    for name in ("policy", "data"):
        (tmp_path / name).mkdir()
    (tmp_path / "train.jsonl").touch()
    (tmp_path / "mine.py").touch()
    config = TrainConfig(
        recipe=grpo(), model=tmp_path / "policy", task=f"{tmp_path}/train.jsonl,{tmp_path}/train.jsonl",
        judge=f"{tmp_path}/mine.py:score",
    )  # fmt: skip
    text = card("model", config, SUMMARY, [])
    assert str(tmp_path) not in text
    assert "# grpo on train.jsonl,train.jsonl" in text
    assert "`mine.py:score`" in text
    several = dataclasses.replace(config, judge=["correct=number", f"brief={tmp_path}/mine.py:score:0.5"])
    text = card("model", several, SUMMARY, [])
    assert str(tmp_path) not in text
    assert "`correct=number`, weight 1, `brief=mine.py:score`, weight 0.5" in text
    assert ModelCard(text).data.base_model is None
    assert ModelCard(text).data.datasets is None
    assert shown("chain_sum") == "chain_sum"


def test_a_run_pushes_what_it_made_when_all_of_it_is_written(
    make: Callable[..., TrainConfig], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = make(push_to_hub="me/sums")
    assert config.out is not None
    with standing_in(monkeypatch, token="hf_never_written") as hub:
        summary = run(config).summary
    address = f"{hub.address}/me/sums"
    assert summary["pushed"] == {"repository": "me/sums", "address": address}
    assert json.loads((config.out / "summary.json").read_text()) == summary
    assert f"the model is at {address}" in capsys.readouterr().out
    model = (config.out / "model" / "model.safetensors").read_bytes()
    assert hub.files["me/sums/model.safetensors"] == model
    assert hub.files["me/sums/README.md"] == (config.out / "model" / "README.md").read_bytes()
    assert any(name.startswith("me/sums/tensorboard/events.out") for name in hub.files)
    assert config_from_yaml(config.out / "config.yaml").push_to_hub == "me/sums"
    for file in config.out.rglob("*"):
        assert not file.is_file() or b"hf_never_written" not in file.read_bytes()


def test_a_push_that_fails_loses_nothing_and_says_how_to_try_again(
    make: Callable[..., TrainConfig], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = make(push_to_hub="me/sums", hub_public=True)
    assert config.out is not None
    with standing_in(monkeypatch) as hub:
        hub.refuse = "storage is full"
        summary = run(config).summary
    assert summary["stopped"] == "finished"
    assert "403" in summary["pushed"]["error"]
    assert {p.name for p in config.out.iterdir()} >= {"model", "report.html", "summary.json"}
    assert f"policyopt push {config.out} me/sums --public" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["sums", "me/sums/more", "me/../sums", "https://hub/me/sums"])
def test_what_is_no_repository_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"expected owner/name"):
        TrainConfig(recipe=grpo(), push_to_hub=name)
