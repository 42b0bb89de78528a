"""Whole runs of the tiny model, in processes of their own that can be killed."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import multiprocessing
import os
import pkgutil
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
import tqdm
from safetensors.torch import load_file
from torch import Tensor

from policyopt.methods.group.grpo import grpo
from policyopt.recipe import Recipe
from policyopt.training.checkpoint import load_checkpoint
from policyopt.training.config import Checkpoints, Evaluation, Optim, TrainConfig
from policyopt.training.loop import Trainer
from policyopt.training.run import run

# A server that has imported everything, from which each run is forked: a process starts in milliseconds.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    ["tests.runs", "policyopt.engine.local.engine", "policyopt.data.dataset", "torch.utils.tensorboard"]
)

Sabotage = Callable[[], None]
"""Called in the process of a run before it starts: puts a trap somewhere."""


def tiny_run(out: Path, model: Path, task: dict[str, str], recipe: Recipe | None = None, **changes: Any) -> TrainConfig:
    """Ten steps of four prompts with four responses, a checkpoint every second step, an evaluation every fourth."""
    settings: dict[str, Any] = {
        "recipe": recipe or grpo(group_size=4), "model": str(model), "steps": 10, "batch": 16, "max_tokens": 12, "seed": 1,
        "optim": Optim(lr=3e-3, schedule="cosine", warmup=2), "eval": Evaluation(every=4, prompts=6, samples=2, k=2),
        "checkpoints": Checkpoints(every=2, keep=2), "log_samples": 1000, "device": "cpu",
    }  # fmt: skip
    return TrainConfig(**(settings | task | {"out": out} | changes))


def _child(config: TrainConfig, resume: bool, sabotage: Sabotage | None, console: Path, said: Any) -> None:
    said.send("started")
    fit = Trainer.fit

    def told(trainer: Trainer) -> str:
        said.send("fitting")
        return fit(trainer)

    Trainer.fit = told  # type: ignore[method-assign]
    # By default progress bars share a semaphore of the system, which a killed process would leave behind.
    tqdm.tqdm.set_lock(threading.RLock())
    with console.open("a") as text, contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
        torch.set_num_threads(1)
        if sabotage is not None:
            sabotage()
        try:
            run(config, resume=config.out if resume else None)
        except BaseException:
            traceback.print_exc(file=text)
            raise


def start(config: TrainConfig, resume: bool = False, sabotage: Sabotage | None = None) -> Any:
    """A run in a process of its own, which has started. What it prints goes to a file beside its folder."""
    assert config.out is not None
    heard, said = PROCESSES.Pipe(duplex=False)
    process = PROCESSES.Process(target=_child, args=(config, resume, sabotage, config.out.with_suffix(".txt"), said))
    process.start()
    said.close()
    process.heard = heard
    assert hear(process) == "started"
    return process


def hear(process: Any) -> str | None:
    """What a run says next: that it has "started", that it is "fitting"; None where it has ended instead."""
    assert process.heard.poll(120), "it hangs"
    try:
        return process.heard.recv()
    except EOFError:
        return None


def finish(process: Any, config: TrainConfig, seconds: float = 120.0) -> None:
    """Wait for a run to end well."""
    process.join(seconds)
    code = process.exitcode
    if code is None:
        process.kill()
    assert config.out is not None
    assert code == 0, f"exit code {code}: {config.out.with_suffix('.txt').read_text()[-3000:]}"


def nth(where: str, name: str, n: int, act: Callable[..., Any]) -> None:
    """Replace a function of a module or class so that its ``n``-th call (from 0) becomes ``act(original, *args)``."""
    target = pkgutil.resolve_name(where)
    original, count = getattr(target, name), iter(range(10**9))

    @functools.wraps(original)
    def trapped(*args: Any, **kwargs: Any) -> Any:
        if next(count) == n:
            return act(original, *args, **kwargs)
        return original(*args, **kwargs)

    setattr(target, name, trapped)


def die() -> None:
    """What a SIGKILL from outside does at this moment."""
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def timeless(metrics: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Metrics without those that measure time."""
    return [{k: v for k, v in row.items() if not k.startswith("time/") and k != "tokens_per_s"} for row in metrics]


def left_behind(out: Path) -> dict[str, Any]:
    """All that a finished run has left and that does not tell how long it took."""
    checkpoint = load_checkpoint(out / "checkpoints")
    assert checkpoint is not None
    state = checkpoint.state | {"log": None, "counts": checkpoint.state["counts"] | {"seconds": None}}
    summary = json.loads((out / "summary.json").read_text()) | {"seconds": None}
    return {
        "weights": load_file(out / "model" / "model.safetensors"),
        "tensors": {n: x for p in checkpoint.folder.glob("*.safetensors") for n, x in load_file(p).items()},
        "state": state,
        "summary": summary,
        "metrics": timeless(lines(out / "metrics.jsonl")),
        "samples": lines(out / "samples.jsonl"),
        "checkpoints": sorted(p.name for p in (out / "checkpoints").iterdir()),
    }


def assert_same_end(out: Path, reference: dict[str, Any]) -> None:
    """Bit for bit."""
    mine = left_behind(out)
    for name in ("weights", "tensors"):
        a: dict[str, Tensor] = mine.pop(name)
        b: dict[str, Tensor] = reference[name]
        assert a.keys() == b.keys()
        assert [k for k in a if not torch.equal(a[k], b[k])] == []
    for name, value in mine.items():
        assert value == reference[name], name


@contextmanager
def power_cut(after: int) -> Iterator[None]:
    """The trainer dies in the step that follows so many whole ones."""
    original, count = Trainer.step, itertools.count()

    def dies(trainer: Trainer) -> dict[str, float]:
        if next(count) == after:
            raise RuntimeError("power cut")
        return original(trainer)

    with mock.patch.object(Trainer, "step", dies), pytest.raises(RuntimeError, match="power cut"):
        yield
