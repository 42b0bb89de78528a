"""Parts of a recipe exchanged on a line: ``--recipe.advantage Decoupled``."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from policyopt.errors import UserError, explain
from policyopt.part import Part, Wrapper
from policyopt.qualified import part_class
from policyopt.recipe import Recipe


def exchanged(recipe: Recipe, args: Sequence[str]) -> tuple[Recipe, list[str]]:
    """The recipe with the parts that a line puts into slots of one part, and the rest of the line.

    A part is named by its class, ``my.py:Class`` for one of one's own. One that wraps another, and can wrap the part that
    stands there, takes it in; one of a class that stands there already changes nothing. Raises
    :class:`~policyopt.errors.UserError` for an unknown name and for a part that does not belong there.
    """
    single = {f.name for f in dataclasses.fields(Recipe) if not isinstance(getattr(recipe, f.name), tuple | str)}
    rest: list[str] = []
    words = iter(args)
    for word in words:
        option, equals, value = word.partition("=")
        slot = option.removeprefix("--recipe.")
        if not option.startswith("--recipe.") or slot not in single - {"update"}:
            rest.append(word)
            continue
        name = value if equals else next(words, "")
        if not name or name.startswith("--"):
            raise UserError(f"{option} needs a part: the name of its class, such as {option} {_example(recipe, slot)}")
        recipe = _put(recipe, slot, part_class(name), option)
    return recipe, rest


def _put(recipe: Recipe, slot: str, cls: type[Part], option: str) -> Recipe:
    old = getattr(recipe, slot)
    if type(old) is cls:
        return recipe
    try:
        return recipe.replace(**{slot: _made(cls, old)})
    except ValidationError as error:
        raise UserError(f"{option} {cls.__name__}: {explain(error)}") from error


def _made(cls: type[Part], old: Any) -> Part:
    """A part with its defaults, around the old one where it can be."""
    if old is not None and issubclass(cls, Wrapper):
        try:
            return cls(**{cls.around: old})
        except ValidationError:
            pass
    return cls()


def _example(recipe: Recipe, slot: str) -> str:
    old = getattr(recipe, slot)
    return "Decoupled" if slot == "advantage" else "PART" if old is None else type(old).__name__
