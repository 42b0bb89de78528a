"""Set up a run, let it train, and finish it: model, summary, report."""

from __future__ import annotations

import hashlib
import itertools
import json
import platform
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import ValidationError
from rich.console import Console as RichConsole

from policyopt import __version__
from policyopt.data import load_task
from policyopt.engine import make_sampler
from policyopt.engine.protocol import Engine
from policyopt.errors import UserError, explain
from policyopt.files import need_run
from policyopt.items import Example, Task, Verdict, user
from policyopt.judging.names import Written
from policyopt.judging.pool import JudgePool
from policyopt.models.load import DTypeName, Policy
from policyopt.own import resolve
from policyopt.recipe import Recipe
from policyopt.training.collect import Collector
from policyopt.training.config import TrainConfig, at, check_names, config_from_yaml, differences
from policyopt.training.console import Console
from policyopt.training.evaluate import Evaluator, Scores
from policyopt.training.evaluate_texts import TextEvaluator
from policyopt.training.logging import RunLog, disk_errors
from policyopt.training.loop import State, Trainer
from policyopt.training.prompts import PromptStream
from policyopt.training.report import write_report
from policyopt.training.rows import check_filled
from policyopt.training.setup import load_model, room, set_up, unheard, weighed

T = TypeVar("T")


@dataclass(frozen=True)
class Result:
    """What a run left behind."""

    out: Path
    """Folder of the run: ``model/``, ``report.html``, ``metrics.jsonl``, ``samples.jsonl``, ``summary.json``,
    ``checkpoints/``."""
    summary: dict[str, Any]
    """What ``summary.json`` holds: accuracy, length, format and pass@k before and after, steps, seconds."""
    policy: Policy
    """The trained policy (``None`` where the engine's models are in other processes: load ``out / "model"``)."""


def train(recipe: Recipe | str, *, resume: str | Path | None = None, quiet: bool = False, **settings: Any) -> Result:
    """Train with a recipe: ``train(policyopt.methods.grpo(), model="embedded", task="chain_sum", steps=50)``.

    A name stands for the recipe of that method: ``"grpo"``, ``"my.py"``, ``"my.py:name"``, ``"package.module:name"``.
    ``settings`` are the fields of :class:`~policyopt.training.config.TrainConfig`. Raises
    :class:`~policyopt.errors.UserError` before any step when something is wrong with them.
    """
    recipe = resolve(recipe)() if isinstance(recipe, str) else recipe
    try:
        check_names(TrainConfig, settings)
        config = TrainConfig(recipe=recipe, **settings)
    except ValidationError as error:
        raise UserError(explain(error)) from error
    return run(config, resume=None if resume is None else Path(resume), quiet=quiet)


def run(config: TrainConfig, *, resume: Path | None = None, quiet: bool = False) -> Result:
    """Carry out a configuration, or go on with the run in the folder ``resume``.

    What is wrong with the input is found before the first step, and then no new folder is left behind.
    """
    with claimed(config, resume) as out:
        task = load_task(
            config.task, judge=config.judge, options=config.judge_options, prior=config.prior, seed=config.seed,
            heldout=config.eval.prompts,
        )  # fmt: skip
        check_source(config.recipe, task)
        header = {"method": config.recipe.name, "model": config.model, "task": task.name, "out": out}
        timeout, memory, most = config.judging.timeout, config.judging.memory_mb, config.judging.max_failed
        with (
            Console(header, config.steps, quiet=quiet) as console,
            judging(config.recipe, task, timeout=timeout, memory_mb=memory) as judge,
        ):
            engine = set_up(config, task, console.task)
            budget, longest = room(engine.context, config.max_tokens, task)
            stream = PromptStream(
                task.train, engine.text, seed=config.seed, longest=longest, skip=config.long_prompts == "skip"
            )
            if too_long := stream.check():
                console.note(f"{too_long} prompts of more than {longest} tokens are skipped")
            if "solutions" in config.recipe.source.uses and (unsolved := stream.check_solutions(config.recipe.name)):
                console.note(f"{unsolved} prompts have no worked solution: the policy answers them without help")
            if note := unheard(config.recipe, task):
                console.note(note)
            collector = Collector(engine, stream, judge, budget, config.seed, most, run=run_name(out))
            evaluator = measured(config, task, collector)
            evaluator.check()
            if judge is not None and task.judge is not None:
                judge.ready()
                check_filled(config.recipe, task.judge.name, judge.provides)
            need_space(out, engine, config.checkpoints.keep)
            if resume is None:
                write_config(out, config, new=True)
            with RunLog(out) as log:
                weighted = weighed(config, task)
                trainer = Trainer(weighted, engine, collector, evaluator, log, console, out, State(weighted.recipe))
                if resume is not None:
                    found = trainer.load()
                    console.note(
                        f"resumed after step {trainer.state.step}" if found else "no checkpoint: starting again"
                    )
                    write_config(out, config, new=False)
                stopped = trainer.fit()
                after = trainer.evaluate("after").summary
            summary = summarise(config, trainer, task, stopped, after)
            leave(out, engine, summary)
    return Result(out, summary, engine.policy)


def measured(config: TrainConfig, task: Task, collector: Collector) -> Evaluator | TextEvaluator:
    """What measures the held-out examples of a run: answers that are drawn, or the texts that the task gives."""
    engine, stream = collector.engine, collector.stream
    if "sampler" not in config.recipe.source.services:
        return TextEvaluator(collector, task.heldout, config.recipe)
    judge = need_judge(collector.judge, task)
    return Evaluator(engine.text, engine.sampler, judge, task.heldout, collector.budget, stream.longest, config.seed)


def leave(out: Path, engine: Engine, summary: Mapping[str, Any]) -> None:
    """Write what a run leaves behind: the model, ``summary.json`` whole or not at all, the report."""
    with disk_errors(out):
        engine.save(out / "model")
        scratch = out / "tmp-summary.json"
        scratch.write_text(json.dumps(summary, indent=1))
        scratch.replace(out / "summary.json")
        write_report(out)


def check_source(recipe: Recipe, task: Task) -> None:
    """Refuse a recipe without a loss, a source that reads what the task does not bring, and responses that nobody could judge.

    Raises :class:`~policyopt.errors.UserError` with what to do.
    """
    if recipe.surrogate is None and recipe.critic is None and not recipe.regularizers:
        raise UserError(f"{recipe.name} has no loss: set surrogate, or put a loss among the regularizers")
    name = type(recipe.source).__name__
    if missing := sorted(recipe.source.reads - task.texts):
        raise UserError(
            f"{recipe.name}: its source {name} reads {' and '.join(missing)} of every example, and {task.name} has none: take "
            f"a file whose rows have prompt, {', '.join(sorted(recipe.source.reads))}, or a source that draws, such as Group()"
        )
    if "judge" in recipe.services and task.judge is None:
        fits = "PreferencePairs()" if "chosen" in task.texts else "Demonstrations()"
        raise UserError(
            f"{recipe.name}: its source {name} draws responses that have to be judged, and the rows of {task.name} have no "
            f"answer: take the source {fits}, or add a column 'answer'"
        )


@contextmanager
def judging(recipe: Recipe, task: Task, **limits: Any) -> Iterator[JudgePool | None]:
    """The judge of a run; ``None`` where nothing asks for one."""
    if task.judge is None or "judge" not in recipe.services:
        yield None
        return
    with JudgePool(task.judge, **limits) as pool:
        yield pool


def need_judge(judge: T | None, task: Task) -> T:
    """Raises :class:`~policyopt.errors.UserError` for a task without one."""
    if judge is None:
        raise UserError(
            f"{task.name}: its rows have no answer, so that responses cannot be judged: add a column 'answer'"
        )
    return judge


def summarise(config: TrainConfig, trainer: Trainer, task: Task, stopped: str, after: dict[str, Any]) -> dict[str, Any]:
    """What ``summary.json`` holds."""
    state = trainer.state
    return {
        "method": config.recipe.name,
        "model": config.model,
        "task": task.name,
        "seed": config.seed,
        "steps": state.step,
        "seconds": round(state.seconds, 2),
        "responses": int(state.responses),
        "tokens": int(state.tokens),
        "prompts_skipped": trainer.collector.stream.skipped,
        "before": state.before,
        "after": after,
        "stopped": stopped,
        "version": __version__,
        "torch": torch.__version__,
    }


# The run's folder ----------------------------------------------------------------------------------------------------


@contextmanager
def claimed(config: TrainConfig, resume: Path | None) -> Iterator[Path]:
    """The folder of a run. A new one is made at once, so that no other run takes it; it goes if nothing is written.

    Raises :class:`~policyopt.errors.UserError` where the folder holds another run, or no run to go on with.
    """
    if resume is not None:
        same_run(config, resume)
        yield resume
        return
    made: list[Path] = []
    try:
        out = make_folder(config, made)
        yield out
    finally:
        for folder in reversed(made):
            with suppress(OSError):  # it holds something by now
                folder.rmdir()


def run_name(out: Path) -> str:
    """A name that no other run has, in letters and digits: of this machine and the run's folder, which says neither."""
    return hashlib.blake2b(f"{platform.node()}:{out.resolve()}".encode(), digest_size=8).hexdigest()


def make_folder(config: TrainConfig, made: list[Path]) -> Path:
    """Make the folder of a new run; all that had to be made for it is added to ``made``."""
    out = config.out
    if out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        advice = f", or go on with its run by --resume {out}" if (out / "config.yaml").is_file() else ""
        raise UserError(f"--out {out} is {'not empty' if out.is_dir() else 'a file'}: choose another folder{advice}")
    task = Path(config.task.split(",")[0]).stem.replace(":", "-")
    method = re.sub(r"[^\w.+-]+", "-", config.recipe.name)  # it may be anybody's own
    base = Path("runs") / f"{method}-{task}-seed{config.seed}"
    numbered = (base.with_name(f"{base.name}-{i}") for i in itertools.count(2))
    try:
        for folder in [out] if out is not None else itertools.chain([base], numbered):
            for parent in reversed(folder.parents):
                if not parent.exists():
                    parent.mkdir(exist_ok=True)
                    made.append(parent)
            try:
                folder.mkdir()
                made.append(folder)
                return folder
            except FileExistsError:
                if out is not None:
                    return folder
    except OSError as error:
        name = config.out or base
        raise UserError(f"--out {name}: the run's folder cannot be made there ({error.strerror})") from error
    raise AssertionError("there is always a next number")


def same_run(config: TrainConfig, folder: Path) -> None:
    """Check that a configuration may go on with the run in a folder: only what does not change the past may differ."""
    need_run(folder)
    old = config_from_yaml(folder / "config.yaml")
    if config.out not in (None, old.out, folder):
        raise UserError(f"--out {config.out}: a resumed run goes on in its own folder, {folder}; leave --out away")
    free = {"steps", "out", "long_prompts", "eval", "checkpoints", "judging", "micro_batch", "log_samples", "device"}
    # A dataset without held-out rows of its own trains on what is not held out, so that their number stays.
    mine, theirs = (
        {k: v for k, v in c.to_dict().items() if k not in free} | {"eval": {"prompts": c.eval.prompts}}
        for c in (config, old)
    )
    for path in differences(mine, theirs):
        raise UserError(
            f"--resume {folder}: that run has {path} = {at(theirs, path)}, not {at(mine, path)}; "
            "resume it as it was, or start another run"
        )


def write_config(out: Path, config: TrainConfig, *, new: bool) -> None:
    """Write the resolved configuration of a run, whole or not at all."""
    path = out / "config.yaml"
    scratch = out / "tmp-config.yaml"
    try:
        if new:
            path.touch(exist_ok=False)
        scratch.write_text(config.to_yaml())
        scratch.replace(path)
    except FileExistsError:
        raise UserError(f"--out {out}: another run has just started there; choose another folder") from None
    except OSError as error:
        if new:
            path.unlink(missing_ok=True)
        raise UserError(
            f"{path}: the configuration cannot be written ({error.strerror}); choose another folder with --out"
        ) from error
    finally:
        scratch.unlink(missing_ok=True)


def need_space(out: Path, engine: Engine, keep: int) -> None:
    """Refuse to start where the checkpoints and the final model would not fit on the disk."""
    size = engine.size()
    needed = size.checkpoint * (keep + 1) + size.model + (32 << 20)
    place = out.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < needed:
        raise UserError(
            f"{out}: the run needs about {needed >> 20} MiB for checkpoints and model, "
            f"the disk has {free >> 20} MiB free; make room, keep fewer (--checkpoints.keep), or choose another --out"
        )


# Without training ----------------------------------------------------------------------------------------------------


def evaluate_model(
    *, model: str, task: str, judge: Written | None = None, judge_options: Mapping[str, Any] | None = None,
    prior: str | None = None, prompts: int = 256, samples: int = 4, k: int = 4, max_tokens: int | None = None, seed: int = 0,
    device: str = "auto", dtype: DTypeName = "float32",
) -> Scores:  # fmt: skip
    """Held-out scores of a model; progress goes to standard error.

    Raises :class:`~policyopt.errors.UserError` where model, task or numbers cannot be used.
    """
    if samples and not 1 <= k <= samples:
        raise UserError(f"--k {k}: pass@k needs k between 1 and --samples ({samples})")
    questions = load_task(task, judge=judge, options=judge_options, prior=prior, seed=seed, heldout=prompts)
    with _progress(model, questions) as console, JudgePool(need_judge(questions.judge, questions)) as pool:
        policy = load_model(model, questions, console.task, dtype=dtype, device=device)
        budget, longest = room(policy.context, max_tokens, questions)
        evaluator = Evaluator(policy.text, make_sampler(policy), pool, questions.heldout, budget, longest, seed)
        return evaluator(samples, k, lambda done, total: console.task("evaluation", done, total))


def sample_model(
    *, model: str, task: str, judge: Written | None = None, judge_options: Mapping[str, Any] | None = None,
    prompt: str | None = None, questions: int = 4, n: int = 1, temperature: float = 1.0, max_tokens: int | None = None,
    seed: int = 0, device: str = "auto", dtype: DTypeName = "float32",
) -> list[dict[str, Any]]:  # fmt: skip
    """Responses of a model to held-out questions of a task, judged, or to one prompt, unjudged.

    Raises :class:`~policyopt.errors.UserError` where model, task or numbers cannot be used, or a prompt does not fit.
    """
    if n < 1 or questions < 1 or temperature < 0:
        raise UserError(
            f"--n {n}, --questions {questions}, --temperature {temperature}: at least 1, 1 and 0 are needed"
        )
    source = load_task(task, judge=judge, options=judge_options, seed=seed, heldout=questions)
    examples = list(source.heldout)[:questions] if prompt is None else [Example("--prompt", user(prompt), "")]
    with _progress(model, source) as console, JudgePool(need_judge(source.judge, source)) as pool:
        policy = load_model(model, source, console.task, dtype=dtype, device=device)
        budget, longest = room(policy.context, max_tokens, source)
        stream = PromptStream(examples, policy.text, seed=0, longest=longest, skip=False)
        sampler = make_sampler(policy)
        drawn = sampler.run(
            [
                sampler.generate(stream.encode(e), n=n, max_tokens=budget, temperature=temperature, key=(seed, -1, i))
                for i, e in enumerate(examples)
            ]
        )
        texts = [policy.text.decode_all([r.tokens for r in responses]) for responses in drawn]
        verdicts: list[Verdict | None] = [None] * n
        if prompt is None:
            verdicts = list(pool([(e, text) for e, group in zip(examples, texts, strict=True) for text in group]))
    judged = iter(verdicts)
    return [
        {
            "prompt": "\n".join(m["content"] for m in example.prompt),
            "responses": [
                {"response": text, "score": v.score if v else None, "reason": v.reason if v else None}
                for text, v in zip(group, itertools.islice(judged, n), strict=True)
            ],
        }
        for example, group in zip(examples, texts, strict=True)
    ]


def _progress(model: str, task: Task) -> Console:
    """A view of what goes on that leaves standard output to the result."""
    return Console({"model": model, "task": task.name}, 0, out=RichConsole(stderr=True, highlight=False))
