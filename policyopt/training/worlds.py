"""The environment of a run: found by its name, and who plays its episodes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from policyopt import schema
from policyopt.data import load_task
from policyopt.data.worlds import task_of
from policyopt.environments.agent import Agent
from policyopt.environments.calls import form_of
from policyopt.environments.names import made_with, maker, prefixed
from policyopt.environments.worlds.told import Told
from policyopt.errors import UserError
from policyopt.items import EnvironmentSpec, Task
from policyopt.models.template import source as template_source
from policyopt.models.text import Text
from policyopt.qualified import lookup
from policyopt.recipe import Recipe
from policyopt.sources.agents import AgentPlayer
from policyopt.sources.episodes import Episodes, Player
from policyopt.sources.program import Rollout
from policyopt.sources.source import Source


def task_in(spec: Any, env: str | None, env_options: Mapping[str, Any], **how: Any) -> Task:
    """The task of a run, in its environment. A world of the user's own that is told (:class:`~policyopt.environments.worlds.told.Told`)
    brings questions and warm start, as the library's own worlds do, where the task is ``seeds``.

    Raises :class:`~policyopt.errors.UserError` as :func:`policyopt.data.load_task` does.
    """
    if env is not None and spec == "seeds" and ":" in env and prefixed(env) is None:
        found = lookup(env)
        if isinstance(found, type) and issubclass(found, Told):
            world = made_with(found, env_options, env)
            heldout = how.get("heldout") or 256
            named = EnvironmentSpec(env, dict(env_options))
            return task_of(world, f"seeds in {found.__name__}", named, seed=how.get("seed", 0), heldout=heldout)
    return load_task(spec, env=env, env_options=env_options, **how)


def player_of(
    task: Task,
    text: Text,
    context: int,
    limits: Episodes,
    judged: bool,
    can: Collection[str] | None = None,
    source: Source | None = None,
) -> Player | None:
    """Who plays the episodes of a task, with a model that reads so many tokens as ``context``, on an engine that ``can`` so much (all
    that there is, unless it is said), for a ``source`` that may rewrite contexts; ``None`` for a task without an environment.

    Raises :class:`~policyopt.errors.UserError` for an environment that cannot be made; one is made, to see.
    """
    spec = task.environment
    if spec is None:
        return None
    make = maker(spec.name, spec.options, lookup)
    try:
        first = make()
    except UserError:
        raise
    except Exception as error:  # somebody else's program
        raise UserError(f"--env {spec.name} cannot be made: {type(error).__name__}: {error}") from error
    first.close()
    settings = make, text, limits, form_in(text), judged, context
    if not isinstance(first, Agent):
        return Player(
            *settings, rewrite=source.rewrite_context if isinstance(source, Rollout) and source.rewrites else None
        )
    if can is not None and first.own_heat and "temperature" not in can:
        raise UserError(
            "--env-options temperature=agent: this engine trains at temperature 1 alone: leave it out, and answers are drawn at that"
        )
    return AgentPlayer(*settings, stops=can is None or "stop sequences" in can)


def form_in(text: Text) -> str:
    """How the model calls tools, as its chat template says."""
    return form_of(template_source(text.tokenizer))


def check_environment(recipe: Recipe, task: Task) -> None:
    """Refuse a recipe whose program cannot play the task's environment, and one that reads what no environment says.

    Raises :class:`~policyopt.errors.UserError` with what to do.
    """
    source, name = recipe.source, type(recipe.source).__name__
    if task.environment is not None:
        if not (isinstance(source, Rollout) and source.plays_episodes):
            raise UserError(
                f"{recipe.name} draws with {name}, which plays no environments, and {task.name} is one ({task.environment.name}): "
                "take a method that draws groups of responses, such as grpo"
            )
        return
    read = sorted(c for c in recipe.needs if (found := schema.find(c)) is not None and found.filled_by == "environment")
    if read and read[0] not in source.provides:
        raise UserError(
            f"{recipe.name} reads {read[0]!r}, which an environment says turn by turn, and {task.name} is none: take a task with one "
            "(--task maze, --env my_env.py:Name)"
        )
