"""Training from Python."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, Unpack

from pydantic import ValidationError

from policyopt.errors import UserError, explain
from policyopt.files import need_run
from policyopt.own import resolve
from policyopt.recipe import Recipe
from policyopt.training.config import TrainConfig, check_names, config_from_yaml, updated
from policyopt.training.loop import OnStep
from policyopt.training.result import Result
from policyopt.training.run import run
from policyopt.training.settings import Settings


def train(
    recipe: Recipe | str | Path | None = None,
    *,
    resume: str | Path | None = None,
    accept_changes: bool = False,
    quiet: bool = False,
    on_step: OnStep | None = None,
    profile: bool = False,
    **settings: Unpack[Settings],
) -> Result:
    """Train with a recipe: ``train(policyopt.methods.grpo(), model="embedded", task="chain_sum", steps=50)``.

    Args:
        recipe: A recipe, or the name of a method: ``"grpo"``, ``"my.py"``, ``"my.py:name"``, ``"package.module:name"``. Of a
            run that is resumed it may be left out.
        resume: The folder of a run to go on with. Settings that are left out are those of that run; what it got as an
            object (a loaded model, rows, a function) has to be given again.
        accept_changes: Resume although rows, code or models are not what they were when the run began.
        quiet: Print nothing.
        on_step: Called after every step with its metrics by name, ``step`` among them; the run ends, as at its last step,
            where it returns ``False``. What it raises ends the run at once, which can be resumed.
        profile: Write into ``profile.json`` in its folder where time and memory went (``docs/profile.md``).
        settings: The fields of :class:`~policyopt.training.config.TrainConfig`. In the place of names, ``model``,
            ``teacher`` and ``roles`` take a policy or a pair (model, tokenizer), ``task`` and ``eval_task`` rows, ``judge``
            functions. Models are copied, and stay as they are.

    Raises :class:`~policyopt.errors.UserError` before any step when something is wrong with them.
    """
    if resume is not None:
        need_run(Path(resume))
    elif recipe is None:
        raise UserError(
            'train takes a recipe or the name of a method, train("grpo", ...), or resume= with the folder of a run'
        )
    made = resolve(recipe)() if isinstance(recipe, str | Path) else recipe
    given: dict[str, Any] = {**settings} if made is None else {"recipe": made, **settings}
    check_names(TrainConfig, given)
    try:
        config = (
            TrainConfig(**given) if resume is None else updated(config_from_yaml(Path(resume) / "config.yaml"), given)
        )
    except ValidationError as error:
        raise UserError(explain(error)) from error
    folder = None if resume is None else Path(resume)
    return run(config, resume=folder, accept_changes=accept_changes, quiet=quiet, on_step=on_step, profile=profile)


def _signature() -> inspect.Signature:
    """What can be given, field by field, for those who ask Python."""
    plain = inspect.signature(train)
    own = [p for p in plain.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    fields = inspect.signature(TrainConfig).parameters
    named = [
        fields[name].replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=kind.__forward_arg__)
        for name, kind in Settings.__annotations__.items()
    ]
    return plain.replace(parameters=[*own, *named])


train.__signature__ = _signature()  # type: ignore[attr-defined]
