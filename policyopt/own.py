"""A method by whatever name it is taken: ``grpo``, ``my.py``, ``my.py:name``, ``package.module:name``, ``recipe.yaml``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from types import ModuleType
from typing import Any

from policyopt.errors import UserError
from policyopt.files import read_yaml
from policyopt.index import entry_name, index
from policyopt.qualified import is_own, load_file, lookup, need, split
from policyopt.recipe import Recipe, recipe_from_dict
from policyopt.registry import Method, Registered, get_method

UNNAMED = "custom"
"""What a recipe is called that nobody has named."""


def resolve(name: str | Path) -> Method:
    """The method of a name: one of the library's, or something of one's own, whose file then runs like any script.

    In Python it is a function under ``@method``, a function that returns a recipe, or a recipe; ``my.py`` alone is the one
    method, or else the one recipe, in it. A YAML file is a recipe, or the configuration of a run, which holds one.

    Raises :class:`~policyopt.errors.UserError` for what is not there, is no method, or raises, with file and line.
    """
    name = str(name)
    need(name)
    if not is_own(name):
        return get_method(name)
    home, attribute = split(name)
    if home.endswith((".yaml", ".yml")):
        recipe = _read_recipe(Path(home))
        return _from_recipe(recipe, recipe.name if recipe.name != UNNAMED else Path(home).stem, home)
    if not attribute:
        attribute = only_name(load_file(Path(home)), home)
    return _method(lookup(f"{home}:{attribute}"), attribute, f"{home}:{attribute}")


def methods_in(module: ModuleType) -> dict[str, Method]:
    """The methods that a module defines, by the names that they have there."""
    return {k: m for k, m in vars(module).items() if isinstance(m, Method) and m.make.__module__ == module.__name__}


def only_name(module: ModuleType, home: str) -> str:
    """The name of the one method in a file; where there is none, that of the one recipe, or of the one function that is
    said to return a recipe. Raises :class:`~policyopt.errors.UserError`."""
    public = {k: x for k, x in vars(module).items() if not k.startswith("_")}
    found = list(methods_in(module)) or [k for k, x in public.items() if isinstance(x, Recipe) or _makes(x, module)]
    if not found:
        raise UserError(f"{home} has no method: a function under @method, one that returns a Recipe, or a Recipe")
    if len(found) > 1:
        raise UserError(f"{home} has several methods: take one of {', '.join(f'{home}:{k}' for k in found)}")
    return found[0]


def _makes(x: Any, module: ModuleType) -> bool:
    """Whether it is a function of the module that is annotated to return a recipe."""
    if not inspect.isfunction(x) or x.__module__ != module.__name__:
        return False
    returns = x.__annotations__.get("return")
    return returns is Recipe or str(returns).rpartition(".")[2] == "Recipe"


def _method(found: Any, attribute: str, name: str) -> Method:
    if isinstance(found, Recipe):
        borrowed = found.name == UNNAMED or found.name in index()  # of the method that it was made from
        return _from_recipe(found, entry_name(attribute.rpartition(".")[2]) if borrowed else found.name, name)
    if isinstance(found, Method):
        if found.family != "own":
            return found
        confidence = found.confidence if found.arxiv or found.code else "code"
        made = Method(
            _checked(found.make, name), found.name, found.family, base=found.base, arxiv=found.arxiv,
            code=found.code or name, confidence=confidence,
        )  # fmt: skip
    elif inspect.isfunction(found):
        made = Method(_checked(found, name), entry_name(found.__name__), "own", code=name, confidence="code")
    else:
        what = found.kind if isinstance(found, Registered) else type(found).__name__
        raise UserError(
            f"{name} is a {what}; expected a function under @method, a function that returns a Recipe, or a Recipe"
        )
    for argument, p in made.hyperparameters.items():
        if p.default is p.empty:
            raise UserError(f"{name}: the argument {argument!r} has no default; methods take keywords with defaults")
    return made


def _checked(make: Callable[..., Any], name: str) -> Callable[..., Recipe]:
    """The function, which is held to return a recipe."""

    @wraps(make)
    def checked(*args: object, **kwargs: object) -> Recipe:
        made = make(*args, **kwargs)
        if not isinstance(made, Recipe):
            raise UserError(f"{name} returns {made!r}, expected a Recipe")
        return made

    return checked


def _from_recipe(recipe: Recipe, name: str, source: str) -> Method:
    """A recipe as a method without hyper-parameters."""

    def make() -> Any:
        return recipe

    make.__doc__ = f"A recipe of your own, {source}."
    return Method(make, name, "own", code=source, confidence="code")


def _read_recipe(path: Path) -> Recipe:
    data = read_yaml(path)
    inner = data.get("recipe", data)
    try:
        if not isinstance(inner, Mapping):
            raise ValueError(f"recipe: expected a mapping of parts, not {inner!r}")
        return recipe_from_dict(inner)
    except ValueError as error:
        raise UserError(f"{path}: {error.args[0]}") from error
