"""Two processes of TRL's trainer: ``torchrun --nproc-per-node 2 -m tests.integrations.trl_ranks MODEL OUT``.

One optimiser step of some recipes, whose groups lie across the processes, moves the weights by the plain gradient of the whole
mini-batch, worked out by one process alone.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch.nn.functional import pad
from transformers import AutoModelForCausalLM

from policyopt.integrations.trl import MINE
from policyopt.recipe import Recipe
from policyopt.registry import get_method
from tests.integrations.trl_runs import ours, plain

RATE = 0.02


def alike(windows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Micro-batches of all processes at one width."""
    width = max(w["completion_ids"].shape[1] for w in windows)

    def wide(name: str, x: torch.Tensor) -> torch.Tensor:
        ours = name.startswith((MINE, "completion_"))
        return pad(x, (0, width - x.shape[1])) if ours and x.dim() == 2 else x

    return [{name: wide(name, x) for name, x in w.items()} for w in windows]


def halves(completions: list[Any], **_: Any) -> list[float]:
    """All right for a process's last rows, so that a filter drops one group."""
    return [float(i % 2 or i > 7) for i in range(len(completions))]


def one_step(recipe: Recipe, model: Path, out: Path) -> None:
    args = {"per_device_train_batch_size": 6, "gradient_accumulation_steps": 2, "max_steps": 1, "learning_rate": RATE}
    trainer = ours(recipe, model, out, halves, **args)
    prepare, kept = trainer._prepare_inputs, {}

    def moved(batch: Any) -> Any:
        inputs = prepare(batch)
        if not kept:  # drawn: now leave the policy that drew it
            noise = torch.Generator().manual_seed(5)
            with torch.no_grad():
                for p in trainer.model.parameters():
                    p.add_(0.01 * p.std(correction=0) * torch.randn(p.shape, generator=noise))
            kept["start"] = {name: x.clone() for name, x in trainer.model.state_dict().items()}
            kept["windows"] = trainer._buffered_inputs
        return inputs

    trainer._prepare_inputs = moved
    trainer.train()
    assert trainer.accelerator.num_processes == 2
    windows = alike(gather_object([{k: x.cpu() for k, x in w.items()} for w in kept["windows"]]))
    if not trainer.accelerator.is_main_process:
        return
    start = AutoModelForCausalLM.from_pretrained(model)
    start.load_state_dict(kept["start"])
    _, wanted = plain(recipe, start, windows)
    largest = max(float(g.abs().max()) for g in wanted)
    assert largest > 0
    for p, q, g in zip(
        start.parameters(), trainer.accelerator.unwrap_model(trainer.model).parameters(), wanted, strict=True
    ):
        assert float(((p - q) / RATE - g).detach().abs().max()) < 2e-3 * largest, recipe.name
    rows = sum(len(w["completion_ids"]) for w in windows)
    left = int(sum(float(w[f"{MINE}keep"].sum()) for w in windows))
    print(f"{recipe.name}: {left} of {rows} rows", flush=True)


def main(model: Path, out: Path) -> None:
    dapo = get_method("dapo")().set("source.size", 4).set("source.rounds", 1).replace(shape=())
    for recipe in (get_method("grpo")(group_size=4), dapo, get_method("bapo")(group_size=4)):
        one_step(recipe, model, out)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
