"""Whatever may stand where a method's name is taken: the library's, one's own code, a recipe in a file, a run."""

from __future__ import annotations

import inspect
from pathlib import Path
from types import ModuleType
from typing import Any

from policyopt import own
from policyopt.errors import UserError
from policyopt.index import entry_name
from policyopt.recipe import Recipe, recipe_from_dict
from policyopt.registry import Method, entries, get_method

FORMS = "a method of the library, my.py, my.py:name, package.module:name, or recipe.yaml"


def resolve(name: str) -> Method:
    """The method that a name stands for.

    ``grpo`` is the library's; ``my.py`` the one method or recipe of a file, ``my.py:name`` and ``package.module:name``
    a ``@method``, a function that returns a recipe, or a recipe; ``recipe.yaml`` a recipe, or the configuration of a run,
    as YAML. A recipe trains under its own name, or where it has none under that by which it is called here.

    Raises :class:`~policyopt.errors.UserError` for a name that stands for nothing of the kind.
    """
    if name.endswith((".yaml", ".yml")):
        return _from_yaml(Path(name))
    if not own.is_own(name):
        try:
            return get_method(name)
        except KeyError as error:
            raise UserError(error.args[0]) from error
    module, attribute = own.load(name)
    if attribute:
        return as_method(own.lookup(name), name, attribute)
    there = methods_of(module)
    if len(there) != 1:
        which = f"several: take one, {', '.join(f'{name}:{n}' for n in there)}" if there else "none"
        raise UserError(f"{name} should hold one method (a function under @method, or a Recipe); it holds {which}")
    return next(iter(there.values()))


def methods_of(module: ModuleType) -> dict[str, Method]:
    """The methods and recipes that a module defines itself, by the names that they have in it."""
    return {
        name: as_method(x, name, name)
        for name, x in vars(module).items()
        if isinstance(x, Recipe) or _makes_recipes(x, module)
    }


def _makes_recipes(x: Any, module: ModuleType) -> bool:
    """Whether something is a method of a module, or a function of it that says that it returns a recipe."""
    if isinstance(x, Method):
        return x.make.__module__ == module.__name__
    said = getattr(x, "__annotations__", {}).get("return")
    return inspect.isfunction(x) and x.__module__ == module.__name__ and said in (Recipe, "Recipe", "po.Recipe")


def as_method(x: Any, place: str, name: str) -> Method:
    """A method, a function that makes a recipe, or a recipe as a method. Raises ``UserError`` for anything else."""
    if isinstance(x, Method):
        return x
    if isinstance(x, Recipe):
        return from_recipe(x, entry_name(name))
    if inspect.isfunction(x):
        return Method(x, entry_name(name), "own")
    raise UserError(
        f"{place} is a {type(x).__name__}: expected a @method, a function that returns a Recipe, or a Recipe"
    )


def from_recipe(recipe: Recipe, name: str) -> Method:
    """A recipe as a method without hyper-parameters. It keeps a name of its own: one that is no method of the library."""
    taken = {"custom", *(e.name for e in entries("method"))}

    def make() -> Recipe:
        """A recipe composed of parts."""
        return recipe

    return Method(make, name if recipe.name in taken else recipe.name, "own")


def _from_yaml(path: Path) -> Method:
    from policyopt.files import read_yaml

    data = read_yaml(path)
    told = data.get("recipe", data)
    try:
        recipe = recipe_from_dict(told)
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: {error}; expected the parts of a recipe, or a run's config.yaml") from error
    named = isinstance(told, dict) and "name" in told
    return Method(lambda: recipe, recipe.name if named else entry_name(path.stem), "own")
