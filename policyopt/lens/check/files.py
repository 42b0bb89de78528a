"""A user's own file: the methods that it registers and the parts that it defines."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import ValidationError

from policyopt import registry, schema
from policyopt.errors import UserError, explain
from policyopt.lens.check import check
from policyopt.lens.check.parts import ALONE, faults
from policyopt.lens.check.report import Report
from policyopt.methods.group.grpo import grpo
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


def check_named(name: str) -> list[Report]:
    """Check what a line of the command names: a method of the library, or a file (``.py``).

    Raises ``UserError`` as :func:`check_file` does, and for a method that is not known.
    """
    if name.endswith(".py") or Path(name).is_file():
        return check_file(Path(name))
    try:
        return [check(registry.get_method(name)())]
    except KeyError as error:
        raise UserError(f"{error.args[0]}; a file of your own ends in .py") from error


def check_file(path: Path) -> list[Report]:
    """Check every method of the file, and every part that none of them uses, in its slot of a plain GRPO.

    The file is imported: it is code that runs, like any script of the user's own. Raises ``UserError`` for a file that
    is not there, cannot be imported, or defines neither a method nor a part.
    """
    with loaded(path) as (module, methods):
        classes = [
            x for x in vars(module).values()
            if isinstance(x, type) and issubclass(x, Part) and x.__module__ == module.__name__ and x.__name__[0] != "_"
        ]  # fmt: skip
        if not methods and not classes:
            raise UserError(
                f"{path} defines neither a method (a function under @method) nor a part (a class under @part, "
                "made from Surrogate, Weight, Advantage or another slot of policyopt.parts)"
            )
        reports, used = [], set()
        for method in methods:
            recipe = _called(method)
            if isinstance(recipe, Report):
                reports.append(recipe)
                continue
            used |= {type(p) for p in (*(p for _, p in parts_of(recipe)), *recipe.live, *recipe.scored)}
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


@contextlib.contextmanager
def loaded(path: Path) -> Iterator[tuple[ModuleType, list[Method]]]:
    """The module of a file and the methods that it registered, which are forgotten afterwards, as are its columns."""
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    name = f"own.{path.stem}"  # the family of a method is the package that it lies in
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UserError(f"{path} is no Python file")
    registry.methods()
    before = dict(registry._METHODS)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses and pydantic look types up
    sys.path.insert(0, str(path.resolve().parent))
    columns = contextlib.ExitStack()
    columns.enter_context(schema.forgotten())
    try:
        try:
            with contextlib.redirect_stdout(sys.stderr):
                spec.loader.exec_module(module)
        except (Exception, SystemExit) as error:
            raise UserError(
                f"{path} cannot be imported: {_place(error, path)}{type(error).__name__}: {error}"
            ) from error
        yield module, [m for key, m in registry._METHODS.items() if key not in before]
    finally:
        columns.close()
        sys.path.remove(str(path.resolve().parent))
        sys.modules.pop(name, None)
        registry._METHODS.clear()
        registry._METHODS.update(before)


def _place(error: BaseException, path: Path) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    lines = [f.lineno for f in frames if Path(f.filename).resolve() == path.resolve()]
    return f"line {lines[-1]}: " if lines else ""
