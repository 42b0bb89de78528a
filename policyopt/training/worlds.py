"""The environment of a run: found by its name, and who plays its episodes."""

from __future__ import annotations

from policyopt.engine.protocol import Engine
from policyopt.environments.calls import form_of
from policyopt.environments.names import maker
from policyopt.errors import UserError
from policyopt.items import Task
from policyopt.models.text import Text
from policyopt.qualified import lookup
from policyopt.recipe import Recipe
from policyopt.sources.episodes import Episodes, Player
from policyopt.sources.program import Rollout


def player_of(recipe: Recipe, task: Task, engine: Engine, limits: Episodes, judged: bool) -> Player | None:
    """Who plays the episodes of a task; ``None`` for a task without an environment.

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
    source = recipe.source
    rewrite = source.rewrite if isinstance(source, Rollout) and source.rewrites else None
    return Player(make, engine.text, limits, form_in(engine.text), judged, engine.context, rewrite)


def form_in(text: Text) -> str:
    """How the model calls tools, as its chat template says."""
    template = text.tokenizer.chat_template or ""
    return form_of("\n".join(template.values()) if isinstance(template, dict) else str(template))


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
    from policyopt import schema

    read = sorted(c for c in recipe.needs if (found := schema.find(c)) is not None and found.filled_by == "environment")
    if read and read[0] not in source.provides:
        raise UserError(
            f"{recipe.name} reads {read[0]!r}, which an environment says turn by turn, and {task.name} is none: take a task with one "
            "(--task maze, --env my_env.py:Name)"
        )
