"""The optimiser as a setting of a run."""

from __future__ import annotations

from typing import Any

import pytest

from policyopt.engine import Model, Models
from policyopt.errors import UserError
from policyopt.methods.group.grpo import grpo
from policyopt.training.config import Optim, TrainConfig


@pytest.mark.parametrize(
    ("options", "usual"), [({}, 1e-4), ({"model": "a"}, 1e-6), ({"model": "a", "lora": True}, 1e-5)]
)
def test_lion_takes_a_fifth_of_the_usual_rate(options: dict[str, Any], usual: float) -> None:
    rates = [
        TrainConfig(grpo(), optim=Optim(name=name), **options).learning_rate() for name in ("adamw", "lion", "muon")
    ]
    assert rates == pytest.approx([usual, usual / 5, usual], rel=1e-12)
    assert TrainConfig(grpo(), optim=Optim(name="lion", lr=3e-4)).learning_rate() == 3e-4


def test_a_tinker_server_refuses_an_optimiser_before_it_is_asked_anything() -> None:
    pytest.importorskip("tinker")
    from policyopt.engine.tinker.engine import TinkerEngine

    with pytest.raises(UserError, match=r"--optim.name lion: a Tinker server has AdamW alone; leave it out"):
        TinkerEngine(None, Models(Model("nowhere")), grpo(), optimizer="lion")  # type: ignore[arg-type]
