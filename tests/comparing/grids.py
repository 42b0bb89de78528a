"""Small grids and made-up runs for the tests of comparisons."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from policyopt.comparing.grid import Budget, Contender, Grid
from policyopt.methods import dr_grpo, grpo
from policyopt.training.config import Checkpoints, Evaluation, Optim, TrainConfig
from policyopt.training.logging import RunRecord
from tests.tiny import write_task


def small(model: Path, **changes: Any) -> TrainConfig:
    """Four steps of four prompts with four responses, an evaluation every second step."""
    settings: dict[str, Any] = {
        "recipe": grpo(group_size=4), "model": str(model), "steps": 4, "batch": 16, "max_tokens": 8, "device": "cpu",
        "optim": Optim(lr=3e-3), "eval": Evaluation(every=2, prompts=6, samples=2, k=2), "checkpoints": Checkpoints(every=1),
    }  # fmt: skip
    return TrainConfig(**(settings | changes))


def small_grid(model: Path, seeds: Sequence[int] = (0, 1), budget: Budget | None = None, **changes: Any) -> Grid:
    """GRPO and Dr. GRPO."""
    one = small(model, **changes)
    other = dataclasses.replace(one, recipe=dr_grpo(group_size=4))
    return Grid((Contender("grpo", one), Contender("dr-grpo", other)), tuple(seeds), budget or Budget())


def asked_grid(model: Path, **changes: Any) -> Grid:
    """The same on questions that lie beside the model: the library that writes those of a task takes longest to import."""
    return small_grid(model, **write_task(model.parent / "questions") | changes)


def made_run(
    accuracy: Sequence[float], *, steps: int = 10, correct: Sequence[bool | None] = (), rows: Mapping[int, Mapping[str, float]] | None = None,
    **after: Any,
) -> RunRecord:  # fmt: skip
    """A run whose evaluations, evenly spread over its steps, the first before them, found these accuracies; a step draws 100 tokens and
    takes half a second."""
    every = steps // (len(accuracy) - 1)
    metrics: list[dict[str, Any]] = [{"step": 0, "eval/accuracy": accuracy[0]}]
    for step in range(1, steps + 1):
        row: dict[str, Any] = {"step": step, "tokens": 100.0, "time/step": 0.5, **(rows or {}).get(step, {})}
        if step % every == 0 and step < steps:
            row["eval/accuracy"] = accuracy[step // every]
        metrics.append(row)
    summary = {
        "steps": steps, "tokens": 100 * steps, "seconds": 0.5 * steps, "before": {"accuracy": accuracy[0]},
        "after": {"accuracy": accuracy[-1], "correct": list(correct), **after},
    }  # fmt: skip
    return RunRecord(Path("run"), {"eval": {"samples": 4}}, "", metrics, [], summary)
