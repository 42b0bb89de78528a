"""Set up a run, let it train, and finish it: model, summary, report."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from rich.console import Console as RichConsole

from policyopt.data import load_task
from policyopt.data.choose import judge_words
from policyopt.engine import make_sampler
from policyopt.errors import UserError, explain
from policyopt.hub import need_token
from policyopt.items import Example, Task, Verdict, user
from policyopt.judging.names import Written
from policyopt.judging.pool import JudgePool
from policyopt.models.load import DTypeName, Policy
from policyopt.models.prompting import Prompting
from policyopt.own import resolve
from policyopt.recipe import Recipe
from policyopt.sources.truncation import Truncation, truncated
from policyopt.training.advice import Advice
from policyopt.training.collect import Collector
from policyopt.training.config import Judging, TrainConfig, check_names
from policyopt.training.console import Console
from policyopt.training.evaluate import Evaluator, Scores
from policyopt.training.evaluate_texts import TextEvaluator
from policyopt.training.finish import leave, summarise
from policyopt.training.folder import claimed, moved_horizon, need_space, run_name, write_config
from policyopt.training.inputs import inputs_of, refuse_changes
from policyopt.training.logging import RunLog
from policyopt.training.loop import State, Trainer
from policyopt.training.mixture import check_weights
from policyopt.training.process import memory_errors, need_one_process, stoppable
from policyopt.training.prompts import PromptStream
from policyopt.training.resolved import same_judge
from policyopt.training.rows import check_filled
from policyopt.training.setup import load_model, located, room, set_up, told, unheard, weighed
from policyopt.training.tracking import need_trackers, tracked

T = TypeVar("T")

LESS = (
    "take fewer rows at once (--micro-batch 4, then 2, 1), a smaller --max-tokens or --batch, --lora or --dtype bfloat16; "
    "a run that has begun goes on with --resume, where --micro-batch may be another one"
)
"""What to do where memory runs out in training."""
SHORTER = "take a smaller --max-tokens, fewer questions or samples, or --dtype bfloat16"
"""What to do where it runs out otherwise."""


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


def train(
    recipe: Recipe | str, *, resume: str | Path | None = None, accept_changes: bool = False, quiet: bool = False,
    **settings: Any,
) -> Result:  # fmt: skip
    """Train with a recipe: ``train(policyopt.methods.grpo(), model="embedded", task="chain_sum", steps=50)``.

    A name stands for the recipe of that method: ``"grpo"``, ``"my.py"``, ``"my.py:name"``, ``"package.module:name"``.
    ``settings`` are the fields of :class:`~policyopt.training.config.TrainConfig`. A run that is resumed on other rows,
    code or models than it began with is refused unless ``accept_changes``. Raises :class:`~policyopt.errors.UserError`
    before any step when something is wrong with them.
    """
    recipe = resolve(recipe)() if isinstance(recipe, str) else recipe
    try:
        check_names(TrainConfig, settings)
        config = TrainConfig(recipe=recipe, **settings)
    except ValidationError as error:
        raise UserError(explain(error)) from error
    resumed = None if resume is None else Path(resume)
    return run(config, resume=resumed, accept_changes=accept_changes, quiet=quiet)


def run(
    config: TrainConfig, *, resume: Path | None = None, accept_changes: bool = False, quiet: bool = False
) -> Result:
    """Carry out a configuration, or go on with the run in the folder ``resume``.

    What is wrong with the input is found before the first step, and then no new folder is left behind.
    """
    need_one_process()
    need_trackers(config.track)
    if config.push_to_hub is not None:
        need_token(config.push_to_hub)
    with stoppable(), memory_errors(LESS), claimed(config, resume) as out:
        task = load_task(
            config.task, judge=config.judge, options=config.judge_options, prior=config.prior, seed=config.seed,
            heldout=config.eval.prompts, columns=config.columns, eval_task=config.eval_task,
        )  # fmt: skip
        check_source(config.recipe, task)
        if resume is not None:
            same_judge(resume, task)
        header = {"method": config.recipe.name, "model": config.model, "task": task.name, "out": out}
        header |= {"judge": judge_words(task.judge, task.judge_reason)}
        with (
            Console(header, config.steps, quiet=quiet) as console,
            judging(config.recipe, task, config.judging) as judge,
        ):
            for note in task.notes:
                console.note(note)
            engine = set_up(config, task, console.task)
            inputs = inputs_of(config, task, located(config, task))
            for change in refuse_changes(out, inputs, accept_changes) if resume is not None else ():
                console.note(f"going on all the same: {change}")
            engine.text.say_unread(console.note)
            budget, longest = room(engine.context, config.max_tokens, task)
            stream = PromptStream(
                task.train, engine.text, seed=config.seed, longest=longest, skip=config.long_prompts == "skip",
                weights=task.weights,
            )  # fmt: skip
            if too_long := stream.check():
                console.note(f"{too_long} prompts of more than {longest} tokens are skipped")
            if "solutions" in config.recipe.source.uses and (unsolved := stream.check_solutions(config.recipe.name)):
                console.note(f"{unsolved} prompts have no worked solution: the policy answers them without help")
            if note := unheard(config.recipe, task):
                console.note(note)
            most = config.judging.max_failed
            collector = Collector(engine, stream, judge, budget, config.seed, most, run=run_name(out))
            if "sampler" in config.recipe.source.services:
                told(engine.sampler, console)
            evaluator = measured(config, task, collector)
            evaluator.check()
            if judge is not None and task.judge is not None:
                judge.ready()
                check_filled(config.recipe, task.judge.name, judge.provides)
            need_space(out, engine, config.checkpoints)
            if resume is None:
                write_config(out, config, task, inputs)
            with tracked(config, out, console.note) as trackers, RunLog(out, trackers=trackers) as log:
                advice = Advice(config, None if judge is None else task.judge, console.note)
                weighted = weighed(config, task)
                begin = State(weighted.recipe)
                trainer = Trainer(weighted, engine, collector, evaluator, log, console, out, begin, advice)
                if resume is not None:
                    found = trainer.load()
                    console.note(
                        f"resumed after step {trainer.state.step}" if found else "no checkpoint: starting again"
                    )
                    if (moved := moved_horizon(config, out)) is not None:
                        console.note(moved)
                    write_config(out, config, task)
                stopped = trainer.fit()
                summary = trackers.summary = summarise(config, trainer, task, stopped, trainer.evaluate("after"))
            leave(out, engine, config, summary, console.note)
    return Result(out, summary, engine.policy)


def measured(config: TrainConfig, task: Task, collector: Collector) -> Evaluator | TextEvaluator:
    """What measures the held-out examples of a run: answers that are drawn, or the texts that the task gives."""
    engine, stream = collector.engine, collector.stream
    if "sampler" not in config.recipe.source.services:
        return TextEvaluator(collector, task.heldout, config.recipe)
    judge = need_judge(collector.judge, task)
    return Evaluator(
        engine.text, engine.sampler, judge, task.heldout, collector.budget, stream.longest, config.seed,
        max_failed=collector.max_failed, temperature=config.eval.temperature, top_p=config.eval.top_p,
    )  # fmt: skip


def check_source(recipe: Recipe, task: Task) -> None:
    """Refuse a recipe without a loss, a source that reads what the task does not bring, and responses that nobody could judge.

    Raises :class:`~policyopt.errors.UserError` with what to do.
    """
    if recipe.surrogate is None and recipe.critic is None and not recipe.regularizers:
        raise UserError(f"{recipe.name} has no loss: set surrogate, or put a loss among the regularizers")
    check_weights(recipe, task)
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
def judging(recipe: Recipe, task: Task, how: Judging) -> Iterator[JudgePool | None]:
    """The judge of a run; ``None`` where nothing asks for one."""
    if task.judge is None or "judge" not in recipe.services:
        yield None
        return
    with JudgePool(task.judge, timeout=how.timeout, memory_mb=how.memory_mb, workers=how.workers) as pool:
        yield pool


def need_judge(judge: T | None, task: Task) -> T:
    """Raises :class:`~policyopt.errors.UserError` for a task without one."""
    if judge is None:
        raise UserError(
            f"{task.name}: its rows have no answer, so that responses cannot be judged: add a column 'answer'"
        )
    return judge


# Without training ----------------------------------------------------------------------------------------------------


def evaluate_model(
    *, model: str, task: str, judge: Written | None = None, judge_options: Mapping[str, Any] | None = None,
    prior: str | None = None, prompts: int | None = None, columns: str | None = None, samples: int = 4, k: int = 4,
    temperature: float = 1.0, top_p: float = 1.0, max_tokens: int | None = None, seed: int = 0, device: str = "auto",
    dtype: DTypeName = "float32", prompting: Prompting | None = None, max_failed: float = 0.2,
) -> Scores:  # fmt: skip
    """Scores of a model on all rows of a dataset, or on ``prompts`` of them; on 256 held-out questions of a generated task.
    Progress goes to standard error.

    Raises :class:`~policyopt.errors.UserError` where model, task or numbers cannot be used, and where the judge fails on
    a larger share of the responses than ``max_failed``.
    """
    need_one_process()
    if samples and not 1 <= k <= samples:
        raise UserError(f"--k {k}: pass@k needs k between 1 and --samples ({samples})")
    questions = load_task(
        task, judge=judge, options=judge_options, prior=prior, seed=seed, heldout=prompts, columns=columns, whole=True
    )
    with (
        memory_errors(SHORTER),
        _progress(model, questions) as console,
        JudgePool(need_judge(questions.judge, questions)) as pool,
    ):
        policy = load_model(model, questions, console.task, dtype=dtype, device=device, prompting=prompting)
        policy.text.say_unread(console.note)
        budget, longest = room(policy.context, max_tokens, questions)
        for note in questions.notes:
            console.note(note)
        evaluator = Evaluator(
            policy.text, told(make_sampler(policy), console), pool, questions.heldout, budget, longest, seed,
            max_failed=max_failed, option="--max-failed", temperature=temperature, top_p=top_p,
        )  # fmt: skip
        return evaluator(samples, k, lambda done, total: console.task("evaluation", done, total))


def sample_model(
    *, model: str, task: str, judge: Written | None = None, judge_options: Mapping[str, Any] | None = None,
    prompt: str | None = None, columns: str | None = None, questions: int = 4, n: int = 1, temperature: float = 1.0,
    top_p: float = 1.0, top_k: int | None = None, min_p: float = 0.0, max_tokens: int | None = None, seed: int = 0,
    device: str = "auto", dtype: DTypeName = "float32", prompting: Prompting | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Responses of a model to held-out questions of a task, judged, or to one prompt, unjudged.

    Raises :class:`~policyopt.errors.UserError` where model, task or numbers cannot be used, or a prompt does not fit.
    """
    need_one_process()
    if n < 1 or questions < 1 or temperature < 0:
        raise UserError(
            f"--n {n}, --questions {questions}, --temperature {temperature}: at least 1, 1 and 0 are needed"
        )
    source = load_task(
        task, judge=judge, options=judge_options, seed=seed, heldout=questions, columns=columns, whole=True
    )
    examples = list(source.heldout)[:questions] if prompt is None else [Example("--prompt", user(prompt), "")]
    with (
        memory_errors(SHORTER),
        _progress(model, source) as console,
        JudgePool(need_judge(source.judge, source)) as pool,
    ):
        policy = load_model(model, source, console.task, dtype=dtype, device=device, prompting=prompting)
        policy.text.say_unread(console.note)
        budget, longest = room(policy.context, max_tokens, source)
        stream = PromptStream(examples, policy.text, seed=0, longest=longest, skip=False)
        sampler = told(make_sampler(policy), console)
        drawing = truncated(sampler, Truncation(top_p, top_k, min_p))
        drawn = sampler.run(
            [
                drawing.generate(stream.encode(e), n=n, max_tokens=budget, temperature=temperature, key=(seed, -1, i))
                for i, e in enumerate(examples)
            ]
        )
        texts = [policy.text.responses([r.tokens for r in responses]) for responses in drawn]
        verdicts: list[Verdict | None] = [None] * n
        if prompt is None:
            verdicts = list(pool([(e, text) for e, group in zip(examples, texts, strict=True) for text in group]))
    judged = iter(verdicts)
    return [
        {
            "prompt": "\n".join(m["content"] for m in example.prompt),
            "responses": [
                {"response": text, "score": v.score if v and v.rewarded else None, "reason": v.reason if v else None}
                for text, v in zip(group, itertools.islice(judged, n), strict=True)
            ],
        }
        for example, group in zip(examples, texts, strict=True)
    ]


def _progress(model: str, task: Task) -> Console:
    """A view of what goes on that leaves standard output to the result."""
    header = {"model": model, "task": task.name, "judge": judge_words(task.judge, task.judge_reason)}
    return Console(header, 0, out=RichConsole(stderr=True, highlight=False))
