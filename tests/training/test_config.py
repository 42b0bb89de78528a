"""What a configuration refuses by itself."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from policyopt.engine.settings import Cluster, Server, Vllm
from policyopt.methods.group.grpo import grpo
from policyopt.training.config import TrainConfig


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"ray": Cluster(samplers=3)}, "ray.samplers is set, and engine is local: take engine ray, or leave it out"),
        ({"ray": Cluster(samplers=3), "engine": "tinker"}, "ray.samplers is set, and engine is tinker"),
        ({"tinker": Server(base_url="http://x")}, "tinker.base_url is set, and engine is local"),
        ({"vllm": Vllm(url="http://x")}, "vllm.url is set, and sampler is own: take sampler vllm"),
    ],
)
def test_settings_of_an_engine_that_the_run_has_not_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        TrainConfig(recipe=grpo(), **settings)


def test_settings_of_the_engine_of_the_run_are_taken() -> None:
    assert TrainConfig(recipe=grpo(), engine="ray", ray=Cluster(samplers=3)).ray.samplers == 3
    assert TrainConfig(recipe=grpo(), sampler="vllm", vllm=Vllm(url="http://x")).vllm.url == "http://x"
