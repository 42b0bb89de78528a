"""Plans carried out: stage after stage in one folder, gone on with wherever it ended."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import rich.console
from rich.text import Text as Line

from policyopt.data.answered import PREFIX
from policyopt.data.choose import judge_words
from policyopt.errors import UserError
from policyopt.files import write_whole
from policyopt.models.load import load_text
from policyopt.models.merge import merge_folders
from policyopt.stages.answers import are_written, write_answers
from policyopt.stages.plan import (
    ANSWERS,
    FILE,
    OF_THE_TASK,
    STAGE,
    Plan,
    Stage,
    loaded_task,
    plan_from,
    read_plan,
    root,
)
from policyopt.stages.report import write_report
from policyopt.training.config import TrainConfig
from policyopt.training.console import Console
from policyopt.training.folder import locked
from policyopt.training.logging import disk_errors, read_summary
from policyopt.training.measure import evaluate
from policyopt.training.process import memory_errors, need_one_process, stoppable
from policyopt.training.prompts import PromptStream
from policyopt.training.result import Result
from policyopt.training.run import LESS, run
from policyopt.training.setup import place, room


@dataclass(frozen=True)
class Planned:
    """What has become of a plan."""

    out: Path
    stages: Mapping[str, Result]
    """The runs by the names of their stages, in their order; that of a merge has a model and a summary and nothing else."""
    stopped: bool = False
    """It was asked to end before its last stage did."""

    @property
    def report(self) -> Path:
        """The report over all stages."""
        return self.out / "report.html"

    @property
    def model(self) -> Path:
        """The model of the last stage."""
        return [*self.stages.values()][-1].out / "model"

    @property
    def signal(self) -> int:
        """The signal that ended it; 0: none."""
        return next((int(r.summary["signal"]) for r in self.stages.values() if "signal" in r.summary), 0)


def run_plan(
    plan: str | Path | Mapping[str, Any] | None = None, *, resume: str | Path | None = None, out: str | Path | None = None,
    accept_changes: bool = False, quiet: bool = False, **over: Any,
) -> Planned:  # fmt: skip
    """Train in stages: ``run_plan("plan.yaml")``, ``run_plan({"task": "chain_sum", "stages": [...]})``.

    Args:
        plan: A YAML file, or what one would hold (:mod:`policyopt.stages.plan`).
        resume: The folder of a plan to go on with, in the place of ``plan``.
        out: Folder of the plan; unset: ``runs/NAME``, numbered when it exists.
        accept_changes: Resume although rows, code or models are not what they were.
        quiet: Print nothing.
        over: Fields of every stage that go before those of the plan: ``steps=5``, ``seed=3``.

    Raises :class:`~policyopt.errors.UserError` before any step when something is wrong with a stage.
    """
    if resume is not None:
        if plan is not None or out is not None or over:
            raise UserError("resume: the folder says which plan it is of: give nothing else")
        found = plan_in(Path(resume))
    elif plan is None:
        raise UserError("run_plan takes a file or a mapping with stages, or resume= with the folder of a plan")
    else:
        found = plan_from(plan, over=over) if isinstance(plan, Mapping) else read_plan(Path(plan), over)
    folder = Path(resume) if resume is not None else _made(found, None if out is None else Path(out))
    return carry_out(found, folder, accept_changes=accept_changes, quiet=quiet)


def holds_plan(folder: Path) -> bool:
    """Whether a folder is that of a plan."""
    return (folder / FILE).is_file()


def plan_in(folder: Path) -> Plan:
    """The plan of a folder. Raises :class:`~policyopt.errors.UserError` where it holds none."""
    if not holds_plan(folder):
        raise UserError(f"--resume {folder}: no plan lies there ({FILE} is missing)")
    return read_plan(folder / FILE)


def _made(plan: Plan, out: Path | None) -> Path:
    """The folder of a new plan."""
    base = Path("runs") / re.sub(r"[^\w.+-]+", "-", plan.name)
    tried = (
        [out]
        if out is not None
        else itertools.chain([base], (base.with_name(f"{base.name}-{i}") for i in itertools.count(2)))
    )
    folder = next(f for f in tried if out is not None or not f.exists())
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        advice = f", or go on with its plan by --resume {folder}" if holds_plan(folder) else ""
        raise UserError(
            f"--out {folder} is {'not empty' if folder.is_dir() else 'a file'}: choose another folder{advice}"
        )
    return folder


def carry_out(plan: Plan, out: Path, *, accept_changes: bool = False, quiet: bool = False) -> Planned:
    """Carry out the stages of a plan that have not ended, in the folder ``out``.

    Each is an ordinary run in a folder of its own, so that whatever ends it costs what it costs a run, and the whole comes to the same bits.
    Raises :class:`~policyopt.errors.UserError` naming the stage.
    """
    say = _teller(quiet)
    if any(s.answers or s.merge for s in plan.stages):
        need_one_process()
    begun = holds_plan(out)
    with memory_errors(LESS), stoppable():
        for stage in plan.stages if not begun else ():
            with _in_stage(stage.name):
                check_fit(stage, plan, quiet)
        with disk_errors(out):
            out.mkdir(parents=True, exist_ok=True)
        with locked(out, "--resume" if begun else "--out"):
            if not begun:
                with disk_errors(out / FILE):
                    write_whole(out / FILE, plan.to_yaml(), durable=True)
            return _stages(plan, out, accept_changes, quiet, say)


def _stages(plan: Plan, out: Path, accept_changes: bool, quiet: bool, say: Callable[[str], None]) -> Planned:
    results: dict[str, Result] = {}
    for number, stage in enumerate(plan.stages, 1):
        folder, title = plan.folder(out, stage.name), f"stage {number} of {len(plan.stages)}: {stage.name}"
        results[stage.name] = Result(folder)
        try:
            with _in_stage(stage.name):
                if ended(folder):
                    say(f"{title}: has ended")
                else:
                    say(title)
                    _train(plan, stage, out, accept_changes, quiet)
                if not ended(folder):
                    return Planned(out, results, stopped=True)
                if stage.answers is not None and not are_written(folder / ANSWERS):
                    _answer(plan, stage, out, quiet)
        except KeyboardInterrupt as error:
            error.__notes__ = [f"go on with: policyopt train --resume {out}"]
            raise
        finally:
            write_report(plan, out)
    return Planned(out, results)


def ended(folder: Path) -> bool:
    """Whether a stage has come to its end, and not been stopped before."""
    summary = read_summary(folder / "summary.json")
    return bool(summary) and "signal" not in summary


def _train(plan: Plan, stage: Stage, out: Path, accept_changes: bool, quiet: bool) -> None:
    folder = plan.folder(out, stage.name)
    begun = (folder / "config.yaml").is_file()
    if folder.exists() and not begun:
        shutil.rmtree(folder)  # of a process that was killed before anything was there to go on with
    if stage.merge is not None:
        _merge(plan, stage, out, quiet)
        return
    config = dataclasses.replace(filled(plan, stage, out), out=folder)
    run(config, resume=folder if begun else None, accept_changes=accept_changes, quiet=quiet)


def filled(plan: Plan, stage: Stage, out: Path) -> TrainConfig:
    """The configuration of a stage's run: with folders in the place of the names of stages."""

    def model(name: str) -> str:
        if not name.startswith(STAGE):
            return name
        return str(plan.folder(out, name.removeprefix(STAGE)).absolute() / "model")

    config = stage.config
    changed: dict[str, Any] = {"model": model(config.model), "roles": {r: model(m) for r, m in config.roles.items()}}
    if config.teacher is not None:
        changed["teacher"] = model(config.teacher)
    if stage.rows is not None:
        answers = (plan.folder(out, stage.rows.of) / ANSWERS).absolute()
        order = "" if stage.rows.by == "score" else f":{stage.rows.by}"
        changed |= {k: {} if k == "judge_options" else None for k in OF_THE_TASK}
        changed["task"] = f"{PREFIX}{answers}:{stage.rows.form}{order}"
    return dataclasses.replace(config, **changed)


def _answer(plan: Plan, stage: Stage, out: Path, quiet: bool) -> None:
    assert stage.answers is not None
    folder, task = plan.folder(out, stage.name), loaded_task(stage)
    header = {"model": folder / "model", "task": task.name, "judge": judge_words(task.judge, task.judge_reason)}
    with Console(header, 0, quiet=quiet) as console:
        write_answers(
            folder / ANSWERS, str((folder / "model").absolute()), stage.config, task, stage.answers, partial(console.task, "answers")
        )  # fmt: skip


def _merge(plan: Plan, stage: Stage, out: Path, quiet: bool) -> None:
    """Merge the models of stages, and measure what comes of it."""
    merge, config = stage.merge, stage.config
    assert merge is not None
    folder = plan.folder(out, stage.name)
    places = [Path(_start(plan)) if n == "start" else plan.folder(out, n) / "model" for n in merge.of]
    folder.mkdir()
    merge_folders(places, folder / "model", merge)
    found = evaluate(
        str(folder / "model"), config.task, judge=config.judge, judge_options=config.judge_options, columns=config.columns,
        prior=config.prior, prompts=config.eval.prompts, samples=config.eval.samples, k=config.eval.k, max_tokens=config.max_tokens,
        seed=config.seed, device=config.device, dtype=config.dtype, prompting=config.prompting,
    )  # fmt: skip
    summary = {
        "method": f"merge ({merge.way})",
        "task": config.task,
        "steps": 0,
        "after": found.summary,
        "stopped": "finished",
    }
    with disk_errors(folder):
        write_whole(folder / "summary.json", json.dumps(summary, indent=1))


def _start(plan: Plan) -> str:
    """The folder of the model that a plan begins with."""
    first = plan.stages[0]
    found = place(first.config.model, loaded_task(first), lambda *_: None)
    if not Path(found).is_dir():
        raise UserError(f"merge: start is {found}, and a merge takes folders: name one as the model of the first stage")
    return found


def check_fit(stage: Stage, plan: Plan, quiet: bool) -> None:
    """Read the prompts of a stage before anything begins, with the tokenizer of the model that its own goes back to.

    Raises :class:`~policyopt.errors.UserError` for a budget that leaves no room for a prompt, and for prompts that do not fit.
    """
    if stage.merge is not None:
        return
    task, config = loaded_task(stage), stage.config
    model = root(config.model, plan.stages)
    if model != "embedded" and not (Path(model) / "config.json").is_file():
        return  # of a hub id, a file of llama.cpp or adapters, the run of the stage says so
    first = next(s for s in plan.stages if s.config.model == model)
    with Console({}, 0, quiet=quiet) as console:
        start = place(model, loaded_task(first), console.task)
    text, context = load_text(start, config.prompting)
    budgets = [config.max_tokens, *([stage.answers.max_tokens] if stage.answers and stage.answers.max_tokens else [])]
    for budget in budgets:
        _, longest = room(context, budget, task)
        skip = config.long_prompts == "skip"
        PromptStream(task.train, text, seed=config.seed, longest=longest, skip=skip).check()


@contextmanager
def _in_stage(name: str) -> Iterator[None]:
    """Say of which stage an error is."""
    try:
        yield
    except UserError as error:
        raise UserError(f"stage {name}: {error}") from error


def _teller(quiet: bool) -> Callable[[str], None]:
    screen = rich.console.Console(quiet=quiet, highlight=False)
    return lambda text: screen.print(Line(text, "bold"), soft_wrap=True)
