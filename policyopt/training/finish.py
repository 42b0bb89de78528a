"""The end of a run: the model with its card, the summary, the report, and a copy on the hub."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from policyopt import __version__
from policyopt.engine.protocol import Engine
from policyopt.errors import UserError
from policyopt.files import write_whole
from policyopt.hub import push
from policyopt.items import Task
from policyopt.training.card import write_card
from policyopt.training.config import TrainConfig
from policyopt.training.evaluate import Scores
from policyopt.training.logging import disk_errors
from policyopt.training.loop import Trainer
from policyopt.training.report import write_report
from policyopt.training.resolved import resolved


def summarise(config: TrainConfig, trainer: Trainer, task: Task, stopped: str, after: Scores) -> dict[str, Any]:
    """What ``summary.json`` holds."""
    state = trainer.state
    trainer.watch.see(state.step, after.metrics())
    best = trainer.watch.best
    return {
        "method": config.recipe.name,
        "model": config.model,
        "task": task.name,
        **resolved(task),
        "seed": config.seed,
        "steps": state.step,
        "seconds": round(state.seconds, 2),
        "responses": int(state.responses),
        "tokens": int(state.tokens),
        "prompts_skipped": trainer.collector.stream.skipped,
        "before": state.before,
        "after": after.summary,
        "stopped": stopped,
        **({"signal": trainer.heard} if trainer.heard else {}),
        **({} if best is None else {"best": best}),
        "version": __version__,
        "torch": torch.__version__,
    }


def leave(out: Path, engine: Engine, config: TrainConfig, summary: dict[str, Any], tell: Callable[[str], None]) -> None:
    """Write what a run leaves behind: the model, ``summary.json`` whole or not at all, the report; then push the model
    where that is asked for. A push that fails is told of, and stands in the summary."""
    with disk_errors(out):
        engine.save(out / "model")
        for folder in (out / "model", out / "best"):
            if folder.is_dir():
                write_card(folder, config, summary)
        _write(out, summary)
        write_report(out)
    if config.push_to_hub is not None and summary["stopped"] != "interrupted":
        pushed(out, config.push_to_hub, public=config.hub_public, summary=summary, tell=tell)
        with disk_errors(out):
            _write(out, summary)


def pushed(out: Path, repository: str, *, public: bool, summary: dict[str, Any], tell: Callable[[str], None]) -> None:
    """Push the model of a run that has ended, and note in the summary what came of it."""
    try:
        tell(f"pushing the model to {repository}")
        address = push(out / "model", out / "tensorboard", repository, public=public, bar=False)
        summary["pushed"] = {"repository": repository, "address": address}
        tell(f"the model is at {address}")
    except UserError as error:
        summary["pushed"] = {"repository": repository, "error": str(error)}
        tell(
            f"the model was not pushed to {repository} ({error}). It is safe in {out / 'model'}: push it again with "
            f"policyopt push {out} {repository}{' --public' if public else ''}"
        )


def _write(out: Path, summary: dict[str, Any]) -> None:
    write_whole(out / "summary.json", json.dumps(summary, indent=1))
