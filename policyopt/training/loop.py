"""The loop: draw, credit, update, log, save; the same for every recipe."""

from __future__ import annotations

import json
import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from safetensors.torch import save_file

from policyopt.engine.protocol import Engine, UpdateReport
from policyopt.errors import UserError
from policyopt.files import read_json, write_whole
from policyopt.objective import credit, selected
from policyopt.recipe import Recipe, recipe_from_dict
from policyopt.rows import Batch, make_batch
from policyopt.spans import span
from policyopt.steering import States, control, controlled
from policyopt.training.advice import Advice
from policyopt.training.ahead import Waiting, independent, lag, settled
from policyopt.training.batches import minibatches, with_replay
from policyopt.training.best import Watch
from policyopt.training.checkpoint import load_checkpoint, prune, save_checkpoint
from policyopt.training.collect import Collector, Drawn
from policyopt.training.config import TrainConfig
from policyopt.training.console import Console
from policyopt.training.evaluate import Scores
from policyopt.training.evaluate_texts import Measured
from policyopt.training.judged import costly, nothing_left
from policyopt.training.logging import RunLog, disk_errors
from policyopt.training.metrics import batch_metrics, movement_metrics, update_metrics
from policyopt.training.mismatch import too_far
from policyopt.training.probes import draws, measured
from policyopt.training.process import Interrupt
from policyopt.training.remember import remember
from policyopt.training.samples import kept_samples
from policyopt.training.services import Held

OnStep = Callable[[Mapping[str, float]], bool | None]
"""Called with the metrics of a step, ``step`` among them; ``False`` ends the run."""

SKIPS_IN_A_ROW = 3


@dataclass
class State:
    """What a run remembers between steps, beside the tensors of the engine; all of it is in the checkpoint."""

    recipe: Recipe
    step: int = 0
    control: States = field(default_factory=dict)
    """What controllers remember, by name."""
    last: dict[str, float] = field(default_factory=dict)
    """Metrics of the last step, which controllers read."""
    queue: deque[Waiting] = field(default_factory=deque)
    """Batches that wait to be trained on (staleness), drawn or being drawn."""
    recent: deque[Drawn] = field(default_factory=deque)
    """Batches that were trained on and are joined to the next ones (``update.replay``), newest first."""
    before: dict[str, Any] | None = None
    seconds: float = 0.0
    responses: float = 0.0
    tokens: float = 0.0
    skips: int = 0
    """Updates skipped in a row because the loss or the gradient was not finite."""


@dataclass
class Trainer:
    """A run on its way. :func:`~policyopt.training.run.train` sets one up."""

    config: TrainConfig
    engine: Engine
    collector: Collector
    evaluator: Measured
    log: RunLog
    console: Console
    out: Path
    state: State
    advice: Advice | None = None
    """What it says where nothing is right."""
    on_step: OnStep | None = None
    """Sees every step, and may end the run."""
    remark: str = ""
    """What a person should know of the judge in the last step."""
    start: Path | None = None
    """Where the scores of the start lie that it shares with other runs, or shall lie."""
    told: bool = False
    """It was said that judging takes long."""
    heard: int = 0
    """The signal that asked it to stop; 0: none did."""
    warned: bool = False
    """It was said that sampler and trainer differ."""

    def __post_init__(self) -> None:
        self.watch = Watch(self.config, lambda: self.engine.save(self.out / "best"))

    def fit(self) -> str:
        """Train to the last step, to where nothing improves, or to Ctrl-C, SIGTERM or SIGHUP. Returns "finished", why it ended
        early, or "interrupted"."""
        state, config = self.state, self.config
        if state.before is None:
            scores = self.begin()
            state.before = scores.summary
            if self.advice is not None:
                self.advice.evaluated(scores.records)
            self.watch.start(scores.metrics())
            self.log.metrics(0, scores.metrics())
            self.save()
        else:
            self.watch.start(Scores(state.before, []).metrics())
        self.watch.spend(tokens=state.tokens, seconds=state.seconds)
        with Interrupt(self.console) as interrupt:
            while state.step < config.steps and not interrupt.asked and not self.watch.stop:
                metrics = self.step()
                due = config.eval.every and state.step % config.eval.every == 0 and state.step < config.steps
                if due:
                    start = time.perf_counter()
                    metrics |= self.evaluate("eval").metrics()
                    metrics["time/eval"] = time.perf_counter() - start
                self.watch.see(state.step, metrics)
                self.log.metrics(state.step, metrics)
                self.console.step(state.step, metrics, self.remark)
                if self.on_step is not None and self.on_step({"step": float(state.step), **metrics}) is False:
                    self.watch.end("on_step returned False")
                self.watch.spend(tokens=state.tokens, seconds=state.seconds)
                last = state.step == config.steps or interrupt.asked or self.watch.stop
                if state.step % config.checkpoints.every == 0 or last:
                    self.save()
        self.heard = interrupt.asked
        return "finished" if state.step >= config.steps else self.watch.stop or "interrupted"

    @span("step")
    def step(self) -> dict[str, float]:
        """One batch: draw, credit, update. Returns its metrics."""
        start = time.perf_counter()
        state, config = self.state, self.config
        state.recipe = control(state.recipe, state.last, state.control)
        drawn = self.next_batch()
        late = lag(drawn, self.engine.version)
        metrics = drawn.stats | controlled(state.recipe) | (late if config.staleness else {})
        begun = time.perf_counter()
        metrics["time/wait"] = begun - start
        self.engine.set_lr(lr_factor(config, state.step) * state.recipe.update.rate)
        self.remark = drawn.remark
        if not self.told and (cost := costly(drawn.stats)):
            self.told = True
            self.console.note(f"step {state.step + 1}: {cost}")
        if drawn.batch is None:
            self.console.note(f"step {state.step + 1}: {nothing_left(drawn.stats)}; no update")
            self.sample(None, None, drawn.lost)
        else:
            metrics |= self.learn(drawn, drawn.batch)
        self.engine.follow(state.recipe.reference(state.step + 1))
        state.step += 1
        state.responses += drawn.stats["responses"]
        state.tokens += drawn.stats["tokens"]
        state.last = {name: x for name, x in metrics.items() if not name.startswith("time/")}
        metrics["time/update"] = time.perf_counter() - begun
        metrics["time/step"] = time.perf_counter() - start
        metrics["tokens_per_s"] = metrics["tokens"] / metrics["time/step"]
        metrics["lr"] = self.engine.lr
        state.seconds += metrics["time/step"]
        return metrics

    def learn(self, drawn: Drawn, batch: Batch) -> dict[str, float]:
        """Credit and updates of what was drawn. Returns the metrics of both."""
        state, config = self.state, self.config
        whole = with_replay(batch, [d.batch for d in state.recent])
        if "lag" in state.recipe.needs:
            whole = whole.replace(lag=self.engine.version - whole.version)
        credited = credit(state.recipe, self.engine.prepare(whole, state.recipe))
        self.engine.follow(1.0, "previous")
        fresh = credited[: len(batch)]
        metrics = batch_metrics(fresh)
        self.remember(fresh)
        reports, weight = self.update(credited)
        metrics |= update_metrics(reports)
        if fresh.correct is not None and len(reports) > 1:  # the first step has not seen the policy move
            metrics |= movement_metrics(reports[-(len(reports) // state.recipe.update.epochs) :])
        if not self.warned and (said := too_far(metrics, config.dtype)):
            self.warned = True
            self.console.note(f"step {state.step + 1}: {said}")
        if any(r.applied for r in reports):
            metrics["update/size"] = self.engine.update_size()
        self.sample(fresh, weight, drawn.lost)
        if self.advice is not None:
            self.advice.stepped(state.step + 1, fresh.records or [])
        state.recent = deque([Drawn(batch), *state.recent][: state.recipe.update.replay])
        return metrics

    @span("draw")
    def next_batch(self) -> Drawn:
        """The batch of this step: drawn now, or ``staleness`` steps ago."""
        state, config = self.state, self.config
        newest = state.step + len(state.queue)
        for step in range(newest, min(state.step + config.staleness + 1, config.steps)):
            draw = partial(self.collector.draw, state.recipe, step, config.prompts)
            if step > state.step and independent(state.recipe):
                state.queue.append(self.engine.ahead(draw))
            else:
                self.settle()
                state.queue.append(draw())
        return settled(state.queue.popleft())

    def settle(self) -> None:
        """Wait for the batches that are being drawn."""
        self.state.queue = deque(map(settled, self.state.queue))

    def update(self, batch: Batch) -> tuple[list[UpdateReport], torch.Tensor]:
        """All passes over the rows of a batch that the recipe selects. Returns what each optimiser step did and the
        token weights [N, T] of the first pass."""
        reports: list[UpdateReport] = []
        recipe, weight = self.state.recipe, torch.zeros_like(batch.mask)
        chosen = selected(recipe, batch).nonzero()[:, 0]
        if not len(chosen):
            return reports, weight
        batch = batch[chosen]
        for epoch in range(recipe.update.epochs):
            for rows in minibatches(batch, recipe.update.minibatches, (self.config.seed, self.state.step, epoch)):
                report = self.engine.update(recipe, batch[rows])
                reports.append(report)
                if epoch == 0:
                    weight[chosen[rows]] = report.weight
                self.state.skips = 0 if report.applied else self.state.skips + 1
                if not report.applied:
                    self.skipped(batch[rows], report)
        return reports, weight

    def remember(self, batch: Batch) -> None:
        """Keep what the recipe's memory makes of each prompt, or of each role."""
        if self.state.recipe.memory is not None:
            remember(self.state.recipe.memory, batch, self.collector.memory)

    def skipped(self, batch: Batch, report: UpdateReport) -> None:
        """Keep a batch whose loss or gradient was not finite, and stop the run when it keeps happening."""
        folder = self.out / "skipped"
        path = folder / f"step-{self.state.step + 1:06d}-{self.state.skips}.safetensors"
        with disk_errors(path):
            folder.mkdir(exist_ok=True)
            save_file({name: x.contiguous() for name, x in batch.cpu().columns().items()}, path)
        what = "loss" if not math.isfinite(report.loss) else "gradient"
        self.console.note(f"step {self.state.step + 1}: the {what} is not finite, no update; the batch is in {path}")
        if self.state.skips >= SKIPS_IN_A_ROW:
            raise UserError(
                f"the loss or gradient was not finite {SKIPS_IN_A_ROW} times in a row; the batches are in {folder}: "
                "start another run with a lower --optim.lr or another --dtype"
            )

    def sample(self, batch: Batch | None, weight: torch.Tensor | None, lost: Sequence[Mapping[str, Any]]) -> None:
        """Log the first responses of a batch with their token weights, and some of those that were ``lost`` to it."""
        at = {"step": self.state.step + 1, "phase": "train"}
        for record in kept_samples(batch, weight, lost, self.config.log_samples, self.engine.text):
            self.log.sample(at | record)

    def begin(self) -> Scores:
        """The scores of the policy before the first step: of runs that share them, the first one works them out."""
        if self.start is None:
            return self.evaluate("before")
        with FileLock(f"{self.start}.lock"):
            if self.start.is_file():
                found = read_json(self.start)
                scores = Scores(found["summary"], found["records"])
                self.sampled("before", scores)
            else:
                scores = self.evaluate("before")
                write_whole(self.start, json.dumps({"summary": scores.summary, "records": scores.records}))
        return scores

    @span("evaluation")
    def evaluate(self, phase: str) -> Scores:
        """Held-out scores; their responses go to the samples, up to 32 of them."""
        self.settle()
        deep = phase != "eval"
        scores = self.evaluator(
            self.config.eval.samples if deep or draws(self.state.recipe) else 0,
            self.config.eval.k,
            lambda done, total: self.console.task(f"evaluation ({phase})", done, total),
        )
        scores.summary.update(measured(self.state.recipe, self.engine, scores, self.collector.budget))
        if scores.remark:
            self.console.note(f"held-out: {scores.remark}")
        if deep and (program := self.state.recipe.decode) is not None:
            scores.summary["accuracy/decode"] = self.collector.decoded(program, self.evaluator.examples)
        self.sampled(phase, scores)
        return scores

    def sampled(self, phase: str, scores: Scores) -> None:
        """Log the first responses of an evaluation."""
        for record in scores.records[: self.config.log_samples if phase == "eval" else 32]:
            self.log.sample({"step": self.state.step, "phase": phase} | record | {"reward": record["score"]})

    # Checkpoints ---------------------------------------------------------------------------------------------------

    @span("checkpoint")
    def save(self) -> None:
        """Write a checkpoint."""
        self.settle()
        state, tensors = self.state, dict[str, torch.Tensor]()
        kept: dict[str, list[dict[str, Any]]] = {"queue": [], "recent": []}
        for name, plain_batches in kept.items():
            for i, drawn in enumerate(getattr(state, name)):
                records = None if drawn.batch is None else drawn.batch.records
                judged = {"stats": drawn.stats, "lost": drawn.lost, "remark": drawn.remark}
                plain_batches.append({"records": records, "empty": drawn.batch is None, **judged})
                if drawn.batch is not None:
                    tensors |= {f"{name}.{i}/{column}": x for column, x in drawn.batch.columns().items()}
        plain = {
            "recipe": state.recipe.to_dict(),
            "control": state.control,
            "last": state.last,
            "before": state.before,
            "counts": {
                "seconds": state.seconds,
                "responses": state.responses,
                "tokens": state.tokens,
                "skips": state.skips,
            },
            "cursor": self.collector.stream.cursor,
            "skipped_prompts": self.collector.stream.skipped,
            "version": self.engine.version,
            "memory": self.collector.memory,
            "held": [h.to_dict() for h in self.collector.held],
            "notes": self.collector.notes,
            "watch": self.watch.state(),
            **kept,
            "log": self.log.position(),
        }
        folder, keep = self.out / "checkpoints", self.config.checkpoints.keep
        save_checkpoint(folder, state.step, plain, tensors, keep, self.engine.write)

    def load(self) -> bool:
        """Go back to the newest checkpoint of the run's folder, if there is one. The log is cut back to it, or
        emptied."""
        found = load_checkpoint(self.out / "checkpoints")
        if found is None:
            self.log.rewind({})
            return False
        saved, state = found.state, self.state
        if not isinstance(saved["control"], dict) or any(name.startswith("policy/") for name in found.tensors):
            raise UserError(f"{self.out}/checkpoints: written by an earlier version of policyopt; start another run")
        try:
            state.recipe = recipe_from_dict(saved["recipe"])
            self.engine.read(found.folder, saved["version"])
        except (KeyError, ValueError) as error:
            raise UserError(
                f"{self.out}/checkpoints: the checkpoint is of another recipe or model ({error.args[0]})"
            ) from error
        state.step, state.control, state.last, state.before = (
            found.step,
            saved["control"],
            saved["last"],
            saved["before"],
        )
        for name in ("queue", "recent"):
            setattr(
                state, name, deque(self._drawn(f"{name}.{i}/", d, found.tensors) for i, d in enumerate(saved[name]))
            )
        self.collector.memory.update(saved["memory"])
        self.collector.held = [Held.from_dict(h) for h in saved["held"]]
        self.collector.notes.update(saved.get("notes", {}))
        for name, value in saved["counts"].items():
            setattr(state, name, value)
        self.collector.stream.cursor, self.collector.stream.skipped = saved["cursor"], saved["skipped_prompts"]
        self.watch.load(saved.get("watch", {}))
        self.log.rewind(saved["log"])
        prune(self.out / "checkpoints", self.config.checkpoints.keep)
        return True

    def _drawn(self, prefix: str, saved: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Drawn:
        columns = {name.removeprefix(prefix): x for name, x in tensors.items() if name.startswith(prefix)}
        batch = None if saved["empty"] else make_batch(saved["records"], **columns).to(self.engine.device)
        return Drawn(batch, saved["stats"], saved.get("lost", []), saved.get("remark", ""))


def lr_factor(config: TrainConfig, step: int) -> float:
    """The learning rate at a step (from 0) over its base: a linear warm-up, then the schedule."""
    optim = config.optim
    if step < optim.warmup:
        return (step + 1) / optim.warmup
    done = (step - optim.warmup) / max(1, config.steps - optim.warmup)
    if optim.schedule == "constant":
        return 1.0
    return 1.0 - done if optim.schedule == "linear" else (1 + math.cos(math.pi * done)) / 2
