"""The engine of a run: the models that a configuration names, loaded and put together."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from policyopt.carried import is_carried, need
from policyopt.data import builtin_tasks, load_task
from policyopt.engine import Model, Models, check_engine, open_engine
from policyopt.engine.protocol import Engine, EngineSampler
from policyopt.errors import UserError, nearest
from policyopt.items import Task
from policyopt.models.embedded import build_embedded
from policyopt.models.load import Policy, load_policy
from policyopt.models.warmstart import WARM_START, WarmStart
from policyopt.part import Wrapper
from policyopt.parts import Correctness, Decoupled
from policyopt.recipe import Recipe
from policyopt.training.config import TrainConfig
from policyopt.training.console import Console
from policyopt.training.process import ranks

Progress = Callable[[str, float, float], None]
"""Called with a label, how much is done, and out of how much."""

FILLED = frozenset({"reference", "previous"})
"""Roles that the policy itself fills where no model is named for them."""


def set_up(config: TrainConfig, task: Task, progress: Progress) -> Engine:
    """The engine that a configuration asks for.

    Raises :class:`~policyopt.errors.UserError` for a model that cannot be used, a role that nobody fills, and where the
    recipe asks for what the engine cannot do.
    """
    engine = engine_kind(config)
    check_engine(config.recipe, engine, config.sampler)
    optim = config.optim
    vllm = config.vllm if config.sampler == "vllm" else None
    settings = {"local": vllm, "ray": config.ray, "tinker": config.tinker}
    return open_engine(
        engine, models_of(config, task, progress), config.recipe, settings,
        optimizer=optim.name, lr=config.learning_rate(), critic_lr=optim.critic_lr, betas=optim.betas,
        eps=optim.eps, weight_decay=optim.weight_decay, clip_norm=optim.clip_norm, micro_batch=config.micro_batch,
        offload=config.offload,
    )  # fmt: skip


def engine_kind(config: TrainConfig) -> str:
    """The kind of engine that runs the models of a configuration: under torchrun, the one that is spread over its ranks."""
    return "sharded" if ranks() > 1 else config.engine


def models_of(config: TrainConfig, task: Task, progress: Progress) -> Models:
    """The models that a configuration names, as whoever holds them opens them; the embedded ones are built by then.

    Raises :class:`~policyopt.errors.UserError` for a role that nobody fills.
    """
    kind = {"dtype": config.dtype, "device": config.device, "attention": config.attention}
    more = {
        "lora": config.adapters if config.trains_adapters else None,
        "gradient_checkpointing": config.gradient_checkpointing, "compile": config.compile, "prompting": config.prompting,
        "chunks": config.chunks,
    }  # fmt: skip
    roles = {
        name: Model(place(model, task, progress, warm(name, task)), kind) for name, model in named_roles(config).items()
    }
    return Models(Model(place(config.model, task, progress), kind | more), roles)


def check_carried(config: TrainConfig) -> None:
    """Raises :class:`~policyopt.errors.UserError` for a name that only a Python session can fill, and that carries nothing:
    it is from the configuration of an earlier run."""
    names = {"model": config.model, "teacher": config.teacher, "task": config.task, "eval_task": config.eval_task}
    for argument, name in (names | {f"roles[{role!r}]": model for role, model in config.roles.items()}).items():
        if name is not None and is_carried(name):
            need(name, argument)


def weighed(config: TrainConfig, task: Task) -> TrainConfig:
    """The configuration of a run whose parts weigh components as its judges are weighed, where they name none.

    Raises :class:`~policyopt.errors.UserError` where a part would not see what the recipe makes of the reward.
    """
    recipe, path = config.recipe, "advantage"
    found: Any = recipe.advantage
    while isinstance(found, Wrapper) and not isinstance(found, Decoupled):
        found, path = found.within, f"{path}.{found.around}"
    if not isinstance(found, Decoupled):
        return config
    judges = task.judge.options["judges"] if task.judge is not None and task.judge.name == "weighted" else {}
    weights = found.weights or tuple((name, float(one["weight"])) for name, one in judges.items())
    if recipe.shape and "reward" not in dict(weights):
        shapes, given = ", ".join(p.handle for p in recipe.shape), " ".join(f"{name} {w:g}" for name, w in weights)
        raise UserError(
            f"recipe.{path} (Decoupled) takes each judge's own reward and would not see what {shapes} in shape makes of it: "
            f"give that a weight too, as component 'reward' in recipe.{path}.weights (now {given or 'none'}), or take "
            f"{shapes} out"
        )
    return dataclasses.replace(config, recipe=recipe.set(f"{path}.weights", weights))


def unheard(recipe: Recipe, task: Task) -> str:
    """A note where several judges are weighed and the recipe puts another reward in the place of their sum."""
    instead = [p.handle for p in recipe.shape if isinstance(p, Correctness)]
    if task.judge is None or task.judge.name != "weighted" or not instead:
        return ""
    return (
        f"{instead[0]} in shape makes the reward of right and wrong alone, so that the weighted sum of the judges is logged "
        "and not learned from: take it out of shape (in a --config file), or take a method without it"
    )


def load_model(
    model: str,
    task: Task,
    progress: Progress | None = None,
    settings: WarmStart | None = None,
    **options: Any,
) -> Policy:
    """A policy from ``embedded`` (built and warm-started for the task at first use), a folder, or a hub id."""
    return load_policy(place(model, task, progress, settings), **options)


def place(model: str, task: Task, progress: Progress | None = None, settings: WarmStart | None = None) -> str:
    """Where a model lies: the folder of the embedded one, which is built where it is not there yet, or the name itself."""
    if model == "embedded":
        tell = (
            None
            if progress is None
            else lambda step, total, loss: progress("warm start (once, then cached)", step, total)
        )
        # The same model for every seed of a run: what a seed changes is the training that follows.
        start = load_task(task.name, heldout=1) if task.name in builtin_tasks() else task
        model = str(build_embedded(start, settings=settings, progress=tell))
    return model


def located(config: TrainConfig, task: Task, progress: Progress | None = None) -> dict[str, str]:
    """The folder or hub id of every model of a run, by role; the policy is one."""
    others = {name: place(model, task, progress, warm(name, task)) for name, model in named_roles(config).items()}
    return {"policy": place(config.model, task, progress), **others}


def warm(role: str, task: Task) -> WarmStart | None:
    """How the embedded model in a role is warmed up where the task does not say: a teacher always works its answers out."""
    return dataclasses.replace(WARM_START, **{**task.warm_start, "terse": 0.0}) if role == "teacher" else None


def named_roles(config: TrainConfig) -> Mapping[str, str]:
    """The model for each role that the recipe reads and that is not the policy's own start, by name.

    The teacher beside the embedded model is "embedded" where none is named. Raises
    :class:`~policyopt.errors.UserError` where a role has no model or several, and for a name that nothing reads.
    """
    method, reads = config.recipe.name, config.recipe.roles
    named = dict(config.roles)
    if config.teacher is not None:
        if named.get("teacher", config.teacher) != config.teacher:
            raise UserError(
                f"--teacher {config.teacher} and --role teacher={named['teacher']} name two models: leave one of them away"
            )
        if "teacher" in reads:  # a teacher may be named beside every method
            named["teacher"] = config.teacher
    for name in named.keys() - (reads - {"previous"}):
        known = sorted(reads - {"previous"})
        advice = f"it reads {nearest(name, known).removeprefix('nearest: ')}" if known else "it reads none"
        raise UserError(f"--role {name}={named[name]}: {method} reads no model in the role {name!r}; {advice}")
    if "teacher" in reads and "teacher" not in named and config.model == "embedded":
        named["teacher"] = "embedded"
    for name in sorted(reads - FILLED - named.keys()):
        raise UserError(missing_role(method, name, config.model))
    return named


def missing_role(method: str, role: str, model: str) -> str:
    """What to say where nobody fills a role."""
    what = "a teacher" if role == "teacher" else f"a model in the role {role!r}"
    option = "--teacher" if role == "teacher" else f"--role {role}=PATH"
    return (
        f"{method} reads {what}: name its model with {option}, a folder or hub id of a model with the same vocabulary "
        f"as {model}"
    )


def told(sampler: EngineSampler, console: Console) -> EngineSampler:
    """A sampler, after it was said where it draws slowly."""
    if sampler.slow:
        console.note(sampler.slow)
    return sampler


def room(context: int, max_tokens: int | None, task: Task) -> tuple[int, int]:
    """How many tokens a response may have, and how many the model's context then leaves for a prompt."""
    budget = max_tokens or task.max_tokens
    longest = context - budget
    if longest < 1:
        asked = f"--max-tokens {budget}" if max_tokens else f"the budget of {budget} tokens that {task.name} suggests"
        raise UserError(
            f"{asked} leaves no room for a prompt in the model's context of {context} tokens: set a lower --max-tokens"
        )
    return budget, longest
