"""How far the policy goes while it learns from a batch, and batches that grow by mini-batches."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import policyopt as po
from policyopt.engine.local import LocalEngine
from policyopt.methods.critic.ppo import ppo
from policyopt.methods.group.grpo import grpo
from policyopt.methods.settings.ppo_million_envs import co_scaled, ppo_million_envs, stationary_variance
from policyopt.models.likelihood import LOGP
from policyopt.training.config import Evaluation, Optim, TrainConfig
from policyopt.training.metrics import movement_metrics, update_metrics
from policyopt.training.run import run
from tests.runs import lines, tiny_run
from tests.tiny import load_tiny, token_batch, write_task


@pytest.mark.parametrize("micro", [None, 2])
def test_the_divergence_is_that_of_the_last_pass_over_the_batch(micro: int | None, tiny_model: Path) -> None:
    recipe = grpo(kl_coef=0.0)
    engine = LocalEngine(load_tiny(tiny_model), recipe, lr=3e-2, micro_batch=micro)
    batch = token_batch()
    # A row of another origin was not drawn by the policy, and of another the first token was written by a guide.
    guided = torch.zeros_like(batch.mask)
    guided[3, 0] = 1
    batch = batch.replace(advantage=batch.noise, origin=(torch.arange(7) == 2).long(), guided=guided)
    batch = batch.replace(old_logp=logp_of(engine, batch))
    counted = batch.mask * (1 - guided) * (torch.arange(7) != 2)[:, None]
    total = tokens = 0.0
    reports = []
    for epoch in range(2):
        for rows in torch.arange(7).split(4):
            if epoch:
                x = logp_of(engine, batch[rows]) - batch.old_logp[rows]
                total += float(((x.exp() - 1 - x) * counted[rows]).sum())
                tokens += float(counted[rows].sum())
            reports.append(engine.update(recipe, batch[rows]))
    found = movement_metrics(reports[-2:])
    assert found["update/kl"] == pytest.approx(total / tokens, rel=1e-4) and found["update/kl"] > 1e-4
    assert found["update/data_per_kl"] == pytest.approx(tokens**2 / total, rel=1e-4)
    assert not {n for n in update_metrics(reports) if n.startswith("moved/")}
    assert movement_metrics([]) == {}


def logp_of(engine: LocalEngine, batch: po.Batch) -> torch.Tensor:
    with torch.no_grad():
        return engine._by_rows(batch, lambda piece: engine._policy(piece, LOGP))["logp"]


def test_a_run_says_it_where_a_batch_makes_several_steps(tiny_model: Path, tmp_path: Path) -> None:
    task, short = write_task(tmp_path / "task"), {"steps": 2, "eval": Evaluation(every=0, prompts=2, samples=0)}
    several = grpo(group_size=4, kl_coef=0.0).set("update.minibatches", 2).set("update.epochs", 2)
    for name, recipe in (("one", grpo(group_size=4, kl_coef=0.0)), ("several", several)):
        config = tiny_run(tmp_path / name, tiny_model, task, recipe, **short)
        run(config, quiet=True)
        rows = [row for row in lines(tmp_path / name / "metrics.jsonl") if row["step"] > 0]
        for row in rows:
            assert (row.get("update/kl", 0.0) > 0) == ("update/data_per_kl" in row) == (name == "several")


@pytest.mark.parametrize("k", [1, 3])
def test_batches_grow_by_mini_batches_alone(k: int) -> None:
    config = TrainConfig(ppo(minibatches=4, epochs=3), batch=64, optim=Optim(lr=3e-4))
    grown = co_scaled(config, k)
    assert (grown.batch, grown.recipe.update.minibatches, grown.recipe.update.epochs) == (64 * k, 4 * k, 3)
    assert (grown == config) == (k == 1)
    assert ppo_million_envs(k)(config) == po.co_scaled(config, k) == grown
    with pytest.raises(po.UserError, match="k is 0, and a batch can become 1, 2, 3"):
        co_scaled(config, 0)


def test_the_toy_comes_to_rest_where_the_formula_says() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.zeros(20_000)
    for _ in range(60):
        x = x - 0.5 * (x + torch.randn(len(x), generator=generator) * (3.0 / 4) ** 0.5)
    assert float(x.var()) == pytest.approx(stationary_variance(0.5, 3.0, 4), rel=0.05)
    for step in (0.0, 2.0):
        with pytest.raises(ValueError, match="never comes to rest"):
            stationary_variance(step, 1.0, 1)
