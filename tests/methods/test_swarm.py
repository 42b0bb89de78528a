"""Runs that share what they have drawn through a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from policyopt.methods.clip.dapo import dapo
from policyopt.methods.group.grpo import grpo
from policyopt.methods.sampling.sapo_swarm import sapo_swarm
from policyopt.objective import credit
from policyopt.parts import TokenMean
from policyopt.training.loop import Trainer
from tests.batches import dlogp, random_batch
from tests.methods.shared_swarm import train
from tests.runs import lines
from tests.tiny import write_task


@pytest.mark.parametrize("seed", range(2))
def test_the_gradient_does_not_know_where_a_row_came_from(seed: int) -> None:
    batch, recipe = random_batch(seed), sapo_swarm()
    parent = grpo(0.2, 0.28, kl_coef=0.0).replace(aggregate=TokenMean()).set("advantage.eps", 1e-8)
    foreign = batch.replace(origin=(batch.group > 0).long())
    torch.testing.assert_close(dlogp(recipe, foreign), dlogp(parent, batch), rtol=0, atol=0)
    assert dlogp(parent, batch).abs().max() > 1e-3
    clip = dapo().surrogate
    assert (recipe.surrogate, recipe.aggregate, recipe.regularizers) == (clip, dapo().aggregate, ())
    assert credit(recipe, batch).advantage.abs().max() > 0


def test_foreign_groups_train_where_the_filters_leave_no_own(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, pool = write_task(tmp_path / "task"), tmp_path / "pool"
    train(tmp_path / "first", tiny_model, task, sapo_swarm(folder=str(pool), group_size=4), steps=1)

    def keep_foreign(self: Any, batch: Any) -> Any:
        return batch.origin > 0

    monkeypatch.setattr("policyopt.parts.MixedOutcomes.__call__", keep_foreign)
    steps = []
    monkeypatch.setattr(Trainer, "sample", lambda self, batch, *_: steps.append(batch.origin.tolist()))
    recipe = sapo_swarm(folder=str(pool), group_size=4).replace(filter=dapo().filter)
    train(tmp_path / "second", tiny_model, task, recipe, seed=5, steps=1)
    assert steps
    assert set(steps[0]) == {1}
    [_, row] = lines(tmp_path / "second" / "metrics.jsonl")
    assert row["filtered"] == 1
    assert row["update/count"] == 1
    assert row["grad_norm"] > 0
