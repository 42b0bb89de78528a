"""Trainers of TRL with the tiny model, and the gradient of a recipe worked out row by row beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

from policyopt.integrations.trl import MINE, RecipeTrainer, config
from policyopt.objective import objective
from policyopt.recipe import Recipe
from policyopt.rows import Batch

ROWS = 8
"""Responses of a micro-batch."""


def shout(completions: list[Any], **_: Any) -> list[float]:
    """A number of its own for every row, 1 or more for every other one."""
    texts = [c[0]["content"] for c in completions]
    return [i % 2 + sum(map(str.islower, text)) / (1 + len(text)) for i, text in enumerate(texts)]


def settings(out: Path, **more: Any) -> dict[str, Any]:
    plain = {
        "output_dir": str(out), "per_device_train_batch_size": ROWS, "max_completion_length": 10, "max_steps": 3, "use_cpu": True,
        "bf16": False, "gradient_checkpointing": False, "report_to": "none", "disable_tqdm": True, "learning_rate": 0.02,
        "save_strategy": "no", "logging_strategy": "no", "lr_scheduler_type": "constant", "optim": "sgd", "max_grad_norm": 0.0,
    }  # fmt: skip
    return plain | more


def parts(model: Path, rewards: Any = shout, prompts: int = 64) -> dict[str, Any]:
    rows = [{"prompt": [{"role": "user", "content": f"{i}+{i}=?"}]} for i in range(prompts)]
    return {
        "model": AutoModelForCausalLM.from_pretrained(model), "reward_funcs": rewards, "train_dataset": Dataset.from_list(rows),
        "processing_class": AutoTokenizer.from_pretrained(model, padding_side="left"),
    }  # fmt: skip


def ours(recipe: Recipe, model: Path, out: Path, rewards: Any = shout, **more: Any) -> RecipeTrainer:
    given = parts(model, rewards)
    return RecipeTrainer(recipe=recipe, args=config(recipe, **settings(out, **more)), **given)


def theirs(model: Path, out: Path, **more: Any) -> GRPOTrainer:
    return GRPOTrainer(args=GRPOConfig(**settings(out, **more)), **parts(model))


def drawn(trainer: RecipeTrainer) -> list[dict[str, Any]]:
    """Let the trainer draw a batch, then move its policy away from what drew it. Returns the micro-batches."""
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = trainer.args.gradient_accumulation_steps
    trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    noise = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for p in trainer.model.parameters():
            p.add_(0.01 * p.std(correction=0) * torch.randn(p.shape, generator=noise))
    return trainer._buffered_inputs


def gradient(trainer: Any, window: list[dict[str, Any]], loss_of: Any) -> tuple[float, list[Tensor]]:
    """The loss of an optimiser step, and its gradient."""
    trainer.model.zero_grad()
    value = 0.0
    for i, inputs in enumerate(window):
        trainer._step = i
        loss = loss_of(trainer, trainer.model, inputs)
        loss.backward()
        value += float(loss.detach())
    trainer._step = 0
    return value, [p.grad.clone() for p in trainer.model.parameters() if p.grad is not None]


def plain(recipe: Recipe, model: Any, window: list[dict[str, Any]], heat: float = 1.0) -> tuple[float, list[Tensor]]:
    """The same without the trainer: the whole mini-batch, each row by itself through the model, autograd through it all."""
    model.zero_grad()
    columns = {
        name.removeprefix(MINE): torch.cat([w[name] for w in window])
        for name in window[0] if name.startswith(MINE) and name != f"{MINE}share"
    }  # fmt: skip
    keep = columns.pop("keep") > 0
    logp, entropy = [], []
    for w in window:
        for i in range(len(w["completion_ids"])):
            asked = w["prompt_ids"][i][w["prompt_mask"][i] > 0]
            said = w["completion_ids"][i][w["completion_mask"][i] > 0]
            logits = model(input_ids=torch.cat([asked, said])[None]).logits[0, len(asked) - 1 : -1] / heat
            over = torch.distributions.Categorical(logits=logits)
            pad = (0, w["completion_ids"].shape[1] - len(said))
            logp.append(torch.nn.functional.pad(over.log_prob(said), pad))
            entropy.append(torch.nn.functional.pad(over.entropy(), pad))
    leaves = {"logp": torch.stack(logp)[keep], "entropy": torch.stack(entropy)[keep]}
    loss = objective(recipe, Batch(columns)[keep].with_leaves(leaves))
    loss.backward()
    return float(loss), [p.grad.clone() for p in model.parameters() if p.grad is not None]


def assert_same(found: tuple[float, list[Tensor]], wanted: tuple[float, list[Tensor]], atol: float = 1e-6) -> None:
    assert abs(found[0] - wanted[0]) <= atol
    largest = max(float(g.abs().max()) for g in wanted[1])
    assert largest > 0, "nothing was compared"
    for mine, other in zip(found[1], wanted[1], strict=True):
        assert float((mine - other).abs().max()) <= atol * max(1.0, largest), (
            float((mine - other).abs().max()) / largest
        )
