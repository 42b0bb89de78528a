"""Set up a run, let it train, and finish it: model, summary, report."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import ExitStack, closing, contextmanager, nullcontext
from pathlib import Path
from typing import TypeVar

from policyopt.data.choose import judge_words
from policyopt.engine import check_profile, profiled
from policyopt.engine.protocol import Engine
from policyopt.errors import UserError
from policyopt.hub import need_token
from policyopt.items import Example, Task
from policyopt.judging.pool import JudgePool
from policyopt.recipe import Recipe
from policyopt.training.advice import Advice
from policyopt.training.collect import Collector
from policyopt.training.config import Judging, TrainConfig
from policyopt.training.console import Console
from policyopt.training.evaluate import Evaluator
from policyopt.training.evaluate_texts import BothEvaluator, Measured, TextEvaluator
from policyopt.training.finish import leave, summarise
from policyopt.training.folder import claimed, moved_horizon, need_space, run_name, write_config
from policyopt.training.inputs import inputs_of, refuse_changes
from policyopt.training.logging import RunLog
from policyopt.training.loop import OnStep, State, Trainer
from policyopt.training.mixture import check_weights
from policyopt.training.process import memory_errors, stoppable, together
from policyopt.training.profile import PROFILE
from policyopt.training.prompts import PromptStream
from policyopt.training.resolved import same_judge
from policyopt.training.result import Result
from policyopt.training.rows import check_filled
from policyopt.training.setup import check_carried, engine_kind, located, room, set_up, told, unheard, weighed
from policyopt.training.tracking import need_trackers, tracked
from policyopt.training.worlds import check_environment, player_of, task_in

T = TypeVar("T")

LESS = (
    "take fewer rows at once (--micro-batch 4, then 2, 1), a smaller --max-tokens or --batch, --lora or --dtype bfloat16; "
    "a run that has begun goes on with --resume, where --micro-batch may be another one"
)
"""What to do where memory runs out in training."""


def run(
    config: TrainConfig, *, resume: Path | None = None, accept_changes: bool = False, quiet: bool = False,
    on_step: OnStep | None = None, profile: bool = False, start: Path | None = None,
) -> Result:  # fmt: skip
    """Carry out a configuration, or go on with the run in the folder ``resume``. ``on_step`` gets the metrics of every step,
    and ends the run where it returns ``False``; ``profile`` leaves in :data:`~policyopt.training.profile.PROFILE` where time
    and memory went. Runs that begin alike may share the scores of their ``start``, a file that the first one writes.

    What is wrong with the input is found before the first step, and then no new folder is left behind.
    """
    kind = engine_kind(config)
    if profile:
        check_profile(kind)
    check_carried(config)
    need_trackers(config.track)
    if config.push_to_hub is not None:
        need_token(config.push_to_hub)
    with together(config.engine), stoppable(), memory_errors(LESS), claimed(config, resume) as out:
        task = loaded(config)
        if resume is not None and not accept_changes:
            same_judge(resume, task)
        header = {"method": config.recipe.name, "model": config.model, "task": task.name, "out": out}
        header |= {"judge": judge_words(task.judge, task.judge_reason)}
        with (
            ExitStack() as left,
            Console(header, config.steps, quiet=quiet) as console,
            judging(config.recipe, task, config.judging) as judge,
        ):
            for note in task.notes:
                console.note(note)
            engine = left.enter_context(closing(set_up(config, task, console.task)))
            inputs = inputs_of(config, task, located(config, task))
            for change in refuse_changes(out, inputs, accept_changes) if resume is not None else ():
                console.note(f"going on all the same: {change}")
            collector = gathered(config, task, engine, judge, console, run_name(out))
            evaluator = measured(config, task, collector)
            evaluator.check()
            await_judge(config.recipe, judge)
            need_space(out, engine, config.checkpoints)
            if resume is None:
                write_config(out, config, task, inputs)
            with tracked(config, out, console.note) as trackers, RunLog(out, trackers=trackers) as log:
                advice = Advice(config, None if judge is None else task.judge, console.note)
                weighted = weighed(config, task)
                trainer = Trainer(
                    weighted, engine, collector, evaluator, log, console, out, State(weighted.recipe), advice, on_step,
                    start=start,
                )  # fmt: skip
                if resume is not None:
                    gone_back(trainer, config)
                    write_config(out, config, task)
                with profiled(kind, engine, out / PROFILE) if profile else nullcontext():
                    stopped = trainer.fit()
                summary = trackers.summary = summarise(config, trainer, task, stopped, trainer.evaluate("after"))
            leave(out, engine, config, summary, console.note)
    return Result(out, engine.policy)


def loaded(config: TrainConfig) -> Task:
    """The task of a configuration. Raises :class:`~policyopt.errors.UserError` where there is none, or its recipe cannot take
    it."""
    task = task_in(
        config.task, config.env, config.env_options, judge=config.judge, options=config.judge_options, prior=config.prior, seed=config.seed,
        heldout=config.eval.prompts, columns=config.columns, eval_task=config.eval_task,
    )  # fmt: skip
    check_source(config.recipe, task)
    return task


def gathered(
    config: TrainConfig, task: Task, engine: Engine, judge: JudgePool | None, console: Console, name: str
) -> Collector:
    """What draws the batches of a run of that name, after everything was said that a person should know of its prompts.

    Raises :class:`~policyopt.errors.UserError` for prompts that cannot be used.
    """
    recipe = config.recipe
    engine.text.say_unread(console.note)
    budget, longest = room(engine.context, config.max_tokens, task)
    stream = PromptStream(
        task.train,
        engine.text,
        seed=config.seed,
        longest=longest,
        skip=config.long_prompts == "skip",
        weights=task.weights,
        source=recipe.source,
        context=engine.context,
    )
    if too_long := stream.check():
        console.note(f"{too_long} prompts of more than {longest} tokens are skipped")
    if stream.left:
        console.note(
            f"{len(stream.left)} rows are skipped, of which a text does not fit behind its prompt into the context of {engine.context} tokens"
        )
    if "solutions" in recipe.source.uses and (unsolved := stream.check_solutions(recipe.name)):
        console.note(f"{unsolved} prompts have no worked solution: the policy answers them without help")
    if note := unheard(recipe, task):
        console.note(note)
    if recipe_draws(recipe) or judge is not None:
        told(engine.sampler, console)
    player = player_of(
        task, engine.text, engine.context, config.episodes, judge is not None, engine.capabilities, recipe.source
    )
    return Collector(engine, stream, judge, budget, config.seed, config.judging.max_failed, player=player, run=name)


def gone_back(trainer: Trainer, config: TrainConfig) -> None:
    """Go back to the newest checkpoint of a run that is resumed, and say so."""
    found, say = trainer.load(), trainer.console.note
    say(f"resumed after step {trainer.state.step}" if found else "no checkpoint: starting again")
    if (moved := moved_horizon(config, trainer.out)) is not None:
        say(moved)


def measured(config: TrainConfig, task: Task, collector: Collector) -> Measured:
    """What measures the held-out examples of a run: answers that are drawn, the texts that the task gives where its source
    reads these, or both where the task has answers too."""
    engine, stream = collector.engine, collector.stream
    given = not recipe_draws(config.recipe) and all(brings(e, config.recipe.source.reads) for e in task.heldout)
    texts = TextEvaluator(collector, task.heldout, config.recipe) if given else None
    if texts is not None and collector.judge is None:
        return texts
    judge = None if task.environment is not None else need_judge(collector.judge, task)
    answers = Evaluator(
        engine.text, engine.sampler, judge, task.heldout, collector.budget, stream.longest, config.seed,
        max_failed=collector.max_failed, temperature=config.eval.temperature, top_p=config.eval.top_p, player=collector.player,
    )  # fmt: skip
    return answers if texts is None else BothEvaluator(texts, answers)


def brings(example: Example, reads: Collection[str]) -> bool:
    """Whether an example has all the texts that a source reads: held-out questions may have none beside their answers."""
    return all(getattr(example, text) not in (None, ()) for text in reads)


def recipe_draws(recipe: Recipe) -> bool:
    """Whether the rows of a recipe are drawn from the policy, and not given."""
    return "sampler" in recipe.source.services


def check_source(recipe: Recipe, task: Task) -> None:
    """Refuse a recipe without a loss, a source that reads what the task does not bring, and responses that nobody could judge.

    Raises :class:`~policyopt.errors.UserError` with what to do.
    """
    if recipe.surrogate is None and recipe.critic is None and not recipe.regularizers:
        raise UserError(f"{recipe.name} has no loss: set surrogate, or put a loss among the regularizers")
    check_weights(recipe, task)
    check_environment(recipe, task)
    name = type(recipe.source).__name__
    if missing := sorted(recipe.source.reads - task.texts):
        columns = {"labelled": "completion, label", "responses": "responses, scores"}
        rows = ", ".join(columns.get(x, x) for x in sorted(recipe.source.reads))
        raise UserError(
            f"{recipe.name}: its source {name} reads {' and '.join(missing)} of every example, and {task.name} has none: take "
            f"a file whose rows have prompt, {rows}, or a source that draws, such as Group()"
        )
    if "judge" in recipe.services and task.judge is None and task.environment is None:
        kinds = {"chosen": "PreferencePairs()", "responses": "Scored()", "labelled": "Labelled()"}
        fits = next((source for text, source in kinds.items() if text in task.texts), "Demonstrations()")
        raise UserError(
            f"{recipe.name}: its source {name} draws responses that have to be judged, and the rows of {task.name} have no "
            f"answer: take the source {fits}, or add a column 'answer'"
        )


@contextmanager
def judging(recipe: Recipe, task: Task, how: Judging) -> Iterator[JudgePool | None]:
    """The judge of a run: of its responses, and of what it says on held-out questions where it learns from given texts. ``None``
    where nothing asks for one, and where the task has no answers."""
    if task.judge is None or ("judge" not in recipe.services and recipe_draws(recipe)):
        yield None
        return
    with JudgePool(task.judge, timeout=how.timeout, memory_mb=how.memory_mb, workers=how.workers) as pool:
        yield pool


def await_judge(recipe: Recipe, judge: JudgePool | None) -> None:
    """Wait until a judge is loaded. Raises :class:`~policyopt.errors.UserError` where it cannot be, or fills no column that the
    recipe needs of it."""
    if judge is not None:
        judge.ready()
        check_filled(recipe, judge.judge.name, judge.provides)


def need_judge(judge: T | None, task: Task) -> T:
    """Raises :class:`~policyopt.errors.UserError` for a task without one."""
    if judge is None:
        raise UserError(
            f"{task.name}: its rows have no answer, so that responses cannot be judged: add a column 'answer'"
        )
    return judge
