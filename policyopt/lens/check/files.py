"""A user's own file: the methods that it registers and the parts that it defines."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from policyopt import qualified
from policyopt.environments.names import adapted, maker, prefixed
from policyopt.environments.worlds import WORLDS
from policyopt.errors import UserError, explain
from policyopt.lens.check import check
from policyopt.lens.check.parts import ALONE, faults
from policyopt.lens.check.report import Report
from policyopt.lens.check.worlds import check_world
from policyopt.lens.check.worlds.found import environments_in, is_environment
from policyopt.methods.group.grpo import grpo
from policyopt.models.text import Text
from policyopt.own import methods_in, resolve
from policyopt.parts import (
    Advantage,
    Aggregate,
    ClippedValueLoss,
    Critic,
    Filter,
    Part,
    Ratio,
    Regularizer,
    SequenceRatio,
    Shape,
    Surrogate,
    Weight,
)
from policyopt.qualified import split
from policyopt.recipe import Recipe, parts_of
from policyopt.registry import Method
from policyopt.sources.draw import GroupWithGreedy

PLACES: dict[type[Part], tuple[str, bool]] = {
    Shape: ("shape", True),
    Filter: ("filter", True),
    Advantage: ("advantage", False),
    Ratio: ("ratio", False),
    Surrogate: ("surrogate", False),
    Weight: ("weight", True),
    Aggregate: ("aggregate", False),
    Regularizer: ("regularizers", True),
    Critic: ("critic", False),
}
"""The field of a recipe that a kind of part fills, and whether it takes several."""


def check_named(name: str, text: Text | None = None) -> list[Report]:
    """Check what a line of the command names: all of a file (``my.py``), an environment, or the method that ``own.resolve`` finds.

    ``text`` are the words of the model that environments are for. What a file declares is forgotten afterwards. Raises ``UserError`` as
    :func:`check_file`, ``own.resolve`` and :func:`policyopt.environments.names.maker` do.
    """
    if name in WORLDS or prefixed(name) is not None:
        return [check_world(name, maker(name, {}, qualified.lookup), text)]
    home, attribute = split(name)
    if home.endswith(".py") and not attribute:
        return check_file(Path(home), text)
    with qualified.forgotten(Path(home)) if home.endswith(".py") else contextlib.nullcontext():
        if home and attribute and is_environment(found := qualified.lookup(name)):
            return [check_world(attribute, adapted(found, {}, name), text)]
        method = resolve(name)
        return [found if isinstance(found := _called(method), Report) else check(found, method.name)]


def check_file(path: Path, text: Text | None = None) -> list[Report]:
    """Check every method and recipe of the file, every part that none of them uses, in its slot of a plain GRPO, and every environment.

    The file runs, like any script of the user's own; its columns are forgotten afterwards. Raises ``UserError`` for a
    file that is not there, cannot be imported, or defines neither a method nor a part nor an environment.
    """
    with qualified.forgotten(path) as module:
        methods = methods_in(module)
        classes = [
            x for x in vars(module).values()
            if isinstance(x, type) and issubclass(x, Part) and x.__module__ == module.__name__ and x.__name__[0] != "_"
        ]  # fmt: skip
        worlds = dict(environments_in(module))
        if not methods and not classes and not worlds:
            raise UserError(
                f"{path} defines neither a method (a function under @method) nor a part (a class under @part, "
                "made from Surrogate, Weight, Advantage or another slot of policyopt.parts) nor an environment"
            )
        reports, used = [check_world(name, make, text) for name, make in worlds.items()], set()
        for method in methods.values():
            recipe = _called(method)
            if isinstance(recipe, Report):
                reports.append(recipe)
                continue
            used |= {type(p) for p in (*(p for _, p in parts_of(recipe)), *recipe.live, *recipe.fixed)}
            reports.append(check(recipe, method.name))
        return reports + [check_class(cls) for cls in classes if cls not in used]


def check_class(cls: type[Part]) -> Report:
    """Check a part with the defaults of its fields, alone and in its slot of a plain GRPO."""
    name = cls.__name__
    try:
        part = cls()
    except (ValidationError, TypeError) as error:
        words = explain(error) if isinstance(error, ValidationError) else str(error)
        return Report(name, notes=(f"not checked: it cannot be made without arguments ({words})",))
    wrong = faults(part)
    if wrong:
        return Report(name, faults=tuple(wrong))
    place = next((place for slot, place in PLACES.items() if isinstance(part, slot)), None)
    if place is None:
        alone = "checked alone" if isinstance(part, ALONE) else "not checked"
        return Report(name, notes=(f"{alone}: it fills no slot of the objective",))
    try:
        recipe = plain(part, *place)
    except ValidationError as error:
        return Report(name, notes=(f"checked alone: in a plain grpo, {explain(error)}",))
    return check(recipe, f"{name} in grpo")


def plain(part: Part, slot: str, several: bool) -> Recipe:
    """GRPO without its KL, with the part in its slot and what the part needs."""
    changes: dict[str, Any] = {slot: (part,) if several else part}
    if "value" in part.needs:
        changes.setdefault("critic", ClippedValueLoss())
    if "baseline_reward" in part.needs:
        changes.setdefault("source", GroupWithGreedy())
    if isinstance(part, Surrogate | Weight) and "token" not in part.levels:
        changes["ratio"] = SequenceRatio()
    return grpo(kl_coef=0.0).replace(**changes)


def _called(method: Method) -> Recipe | Report:
    try:
        return method()
    except Exception as error:
        words = explain(error) if isinstance(error, ValidationError) else f"{type(error).__name__}: {error}"
        return Report(method.name, faults=(f"{method.name} makes no recipe from its defaults: {words}",))
