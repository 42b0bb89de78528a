"""vLLM in this process, against a stand-in for the module."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from policyopt.engine.settings import Vllm
from policyopt.errors import UserError
from policyopt.methods.group.grpo import grpo
from policyopt.models.adapters import LoRA
from policyopt.recipe import Recipe
from policyopt.training.config import Evaluation, TrainConfig
from policyopt.training.run import run
from tests.engine.vllm.module import FakeLLM, installed
from tests.runs import lines, tiny_run
from tests.tiny import write_task

LITTLE: dict[str, Any] = {"steps": 2, "batch": 8, "eval": Evaluation(every=0, prompts=2, samples=0)}


@pytest.fixture
def configure(tiny_model: Path, tmp_path: Path) -> Callable[..., TrainConfig]:
    task = write_task(tmp_path / "task")

    def configured(recipe: Recipe | None = None, vllm: Vllm | None = None, **changes: Any) -> TrainConfig:
        vllm = vllm or Vllm(share=tmp_path / "share")
        return tiny_run(
            tmp_path / "run", tiny_model, task, recipe, **({"sampler": "vllm", "vllm": vllm} | LITTLE | changes)
        )

    return configured


def mismatch(out: Path) -> float:
    return max(row["mismatch/max"] for row in lines(out / "metrics.jsonl")[1:])


def test_the_four_phases_in_their_order(
    configure: Callable[..., TrainConfig], tiny_model: Path, tmp_path: Path
) -> None:
    with installed() as made:
        out = run(configure(vllm=Vllm(share=tmp_path / "share", rows=7, memory=0.3)), quiet=True).out
    [llm] = made
    assert mismatch(out) < 1e-5
    assert llm.calls == ["init", *["start", "update", "finish", "reset"] * 3]
    config = llm.options.pop("weight_transfer_config")
    assert config.backend == "policyopt"
    assert llm.options == {
        "tensor_parallel_size": 1, "logprobs_mode": "processed_logprobs", "max_logprobs": -1, "generation_config": "vllm",
        "dtype": "float32", "max_num_seqs": 7, "gpu_memory_utilization": 0.3, "enable_sleep_mode": False,
        "enforce_eager": True, "max_model_len": 256,
    }  # fmt: skip
    assert llm.llm_engine.largest >= 8, "all of a step are in flight together"
    assert list((tmp_path / "share").iterdir()) == []


def test_sleep_and_wake_around_training(configure: Callable[..., TrainConfig], tmp_path: Path) -> None:
    vllm = Vllm(share=tmp_path / "share", sleep=True)
    with installed() as made:
        assert mismatch(run(configure(vllm=vllm), quiet=True).out) < 1e-5
    update = ["start", "update", "finish", "reset"]
    again = ["wake weights", *update, "wake kv_cache", "sleep 2"]
    calls = made[0].calls
    assert calls[: 6 + 7] == ["init", *update, "sleep 2", *again]
    assert made[0].options["enable_sleep_mode"]


def test_adapters_by_request(configure: Callable[..., TrainConfig], tmp_path: Path) -> None:
    with installed() as made:
        vllm = Vllm(share=tmp_path / "share", sleep=True)
        out = run(configure(vllm=vllm, lora=True, adapters=LoRA(rank=9)), quiet=True).out
    [llm] = made
    assert mismatch(out) < 1e-5
    assert {*llm.calls} == {"wake weights", "wake kv_cache", "sleep 1"}, "the model stays, on the host while it sleeps"
    assert (llm.options["enable_lora"], llm.options["max_lora_rank"]) == (True, 16)
    assert len(llm.double.samplers) == 4, "one for each version"


def test_truncated_draws(configure: Callable[..., TrainConfig]) -> None:
    recipe = grpo(group_size=4).set("source.top_k", 5)
    with installed() as made:
        out = run(configure(recipe, eval=Evaluation(every=0, prompts=2, samples=2, k=2, top_p=0.9)), quiet=True).out
    assert mismatch(out) < 1e-5
    assert made[0].options["return_sampling_mask"] is True


def test_held_out_draws_need_no_record(configure: Callable[..., TrainConfig]) -> None:
    with installed() as made:
        run(configure(eval=Evaluation(every=0, prompts=2, samples=2, k=2, top_p=0.9)), quiet=True)
    assert "return_sampling_mask" not in made[0].options


def test_without_vllm(configure: Callable[..., TrainConfig]) -> None:
    config = configure()
    with (
        mock.patch.dict("sys.modules", {"vllm": None}),
        pytest.raises(UserError, match=r"pip install 'policyopt\[vllm\]'"),
    ):
        run(config, quiet=True)
    assert config.out is not None and not config.out.exists()
    with installed("0.28.1"), pytest.raises(UserError, match=r"vLLM 0.28.1 is there, and 0.32 is needed"):
        run(config, quiet=True)


def test_errors_of_vllm(configure: Callable[..., TrainConfig]) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("out of memory\nmore")

    for name, match in (("__init__", "cannot be started"), ("update_weights", "takes no weights")):
        with installed(), mock.patch.object(FakeLLM, name, broken):
            with pytest.raises(UserError, match=rf"--sampler vllm: .*{match} .out of memory.$"):
                run(configure(), quiet=True)
    shutil.rmtree(configure().out or Path())
    with installed(), mock.patch("tests.engine.vllm.module.Engine.step", broken):
        with pytest.raises(UserError, match=r"it failed .out of memory"):
            run(configure(), quiet=True)
