"""``policyopt train plan.yaml``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from policyopt.cli.plan import fields
from policyopt.errors import UserError
from policyopt.methods.settings.finetuning_guide import finetuning_guide
from policyopt.stages.plan import plan_from, read_plan
from tests.commands import Said
from tests.tiny import write_task

PLANS = Path(__file__).parents[2] / "examples/plans"


@pytest.fixture
def file(tmp_path: Path, tiny_model: Path) -> Path:
    """Two short stages."""
    small = {
        "steps": 3, "batch": 8, "max_tokens": 8, "eval": {"every": 0, "prompts": 4, "samples": 0}, "model": str(tiny_model), "device": "cpu",
        "stages": [{"method": "grpo", "group_size": 4, "answers": {"prompts": 8, "samples": 4}}, {"method": "dpo", "rows": "pairs"}],
    }  # fmt: skip
    path = tmp_path / "two.yaml"
    path.write_text(yaml.safe_dump(small | write_task(tmp_path / "task")))
    return path


def test_a_plan_is_trained_and_gone_on_with(command: Callable[..., Said], file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    said = command("train", file, "--out", out, "--steps", 1)
    assert said.code == 0, said.err
    assert "stage 1 of 2: grpo" in said.out and "stage 2 of 2: dpo" in said.out
    assert f"model: {out}/2-dpo/model" in said.out and f"report: {out}/report.html" in said.out
    assert yaml.safe_load((out / "2-dpo/config.yaml").read_text())["steps"] == 1
    again = command("train", "--resume", out)
    assert again.code == 0 and "stage 2 of 2: dpo: has ended" in again.out
    assert command("train", "--resume", out, "--steps", 3).err.startswith("policyopt: --steps: the stages of")
    taken = command("train", file, "--out", out)
    assert taken.code == 2 and "go on with its plan by --resume" in taken.err


def test_bad_plans(command: Callable[..., Said], tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("stages:\n- method: dpo\n  rows: pairs\n")
    said = command("train", path)
    assert (said.code, said.err) == (2, f"policyopt: {path}: stage 1 (dpo): rows: there is no stage before it\n")
    path.write_text("stages:\n- method: grpo\n  method: dpo\n")
    assert "line 3: not valid YAML (the key 'method' stands there twice)" in command("train", path).err
    assert "usage: policyopt train PLAN.yaml" in command("train", PLANS / "finetuning.yaml", "--help").out


def test_fields_of_a_line() -> None:
    assert fields(["--optim.lr=1e-4", "--group-size", "4", "--lora", "--out", "runs/x"]) == {
        "optim.lr": "1e-4", "group_size": 4, "lora": True, "out": "runs/x",
    }  # fmt: skip
    with pytest.raises(UserError, match="expected --FIELD VALUE"):
        fields(["other.yaml"])


@pytest.mark.parametrize("path", sorted(PLANS.glob("*.yaml")), ids=lambda p: p.stem)
def test_the_examples_are_plans(path: Path) -> None:
    assert read_plan(path).stages


def test_the_guide_is_its_example() -> None:
    assert plan_from(finetuning_guide()).stages == read_plan(PLANS / "finetuning.yaml").stages
