"""A person is told once, and in time, that a model is not sampled from as it is trained."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from policyopt.engine.local.sampler import LocalSampler
from policyopt.errors import UserError
from policyopt.methods.group.grpo import grpo
from policyopt.models.adapters import LoRA
from policyopt.training.config import TrainConfig
from policyopt.training.mismatch import too_far
from policyopt.training.run import run
from tests.tiny import write_task


@pytest.mark.parametrize(
    ("gap", "dtype", "said"),
    [
        (0.04, "float32", ""),
        (0.06, "float32", "up to 0.06 nats .* limit 0.05 in float32"),
        (0.06, "bfloat16", ""),
        (1.5, "float16", "limit 1 in float16.*take --dtype float32"),
    ],
)
def test_the_limit_is_that_of_the_precision(gap: float, dtype: str, said: str) -> None:
    found = too_far({"mismatch/max": gap}, dtype)
    assert not found if not said else re.search(said, found)
    assert too_far({}, dtype) == "", "nothing was drawn by these weights"


def config(tiny_model: Path, out: Path, **settings: Any) -> TrainConfig:
    recipe = grpo(group_size=4)
    return TrainConfig(
        recipe=recipe, model=str(tiny_model), device="cpu", out=out, batch=8, max_tokens=6, **settings,
        eval={"every": 0, "prompts": 4, "samples": 0}, **write_task(out.parent / "data"),
    )  # fmt: skip


def test_a_sampler_that_is_off_is_told_of_once(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its tokens are drawn from other logits than the trainer sees, from the first step on."""
    draw = LocalSampler._draw

    def off(sampler: LocalSampler) -> Any:
        sampler.slow = ""
        assert sampler.stepper.hidden is not None
        sampler.stepper.hidden = sampler.stepper.hidden * 0.5
        return draw(sampler)

    with mock.patch.object(LocalSampler, "_proven", _unproven), mock.patch.object(LocalSampler, "_draw", off):
        run(config(tiny_model, tmp_path / "run", steps=3))
    shown = capsys.readouterr().out
    assert shown.count("sampler and trainer differ by up to") == 1
    assert "more than rounding: the model is not sampled from exactly" in shown
    assert shown.index("sampler and trainer differ") < shown.index("step 2/3")


def _unproven(sampler: LocalSampler, max_rows: int) -> Any:
    from policyopt.engine.local.level import Level

    sampler.slow = "This model is strange: it draws slowly (by hand)"
    return Level(sampler.split, sampler.device, max_rows)


def test_what_the_engine_lacks_is_said_before_a_model_is_loaded(tiny_model: Path, tmp_path: Path) -> None:
    asked = config(Path("/no/such/model"), tmp_path / "run", steps=1)
    with (
        mock.patch("policyopt.engine.local.CAPABILITIES", frozenset()),
        pytest.raises(UserError, match="grpo asks for what the engine 'local' does not have"),
    ):
        run(asked, quiet=True)


def test_a_slow_way_of_decoding_and_adapters_alone_are_said_and_saved(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with mock.patch.object(LocalSampler, "_proven", _unproven):
        result = run(
            config(
                tiny_model,
                tmp_path / "run",
                steps=1,
                lora=True,
                adapters=LoRA(rank=2, save="alone"),
                gradient_checkpointing=True,
            )
        )
    shown = capsys.readouterr().out
    assert shown.count("This model is strange: it draws slowly (by hand)") == 1
    assert (result.out / "model" / "adapter_config.json").is_file()
    assert not (result.out / "model" / "config.json").exists()
    again = config(Path(result.out / "model"), tmp_path / "more", steps=1)
    assert again.learning_rate() == 1e-5, "adapters learn at the rate of adapters"
    assert run(again, quiet=True).policy.begun
