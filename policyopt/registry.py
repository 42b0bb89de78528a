"""The registry of methods: a method is a documented function that returns a recipe."""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import update_wrapper
from typing import Literal

from policyopt.recipe import Recipe

Confidence = Literal["code", "paper", "secondary", "recalled", "abstract"]


@dataclass(eq=False)
class Method:
    """A published method: call it with its hyper-parameters to get its recipe."""

    make: Callable[..., Recipe]
    name: str
    family: str
    parent: str | None
    arxiv: str | None
    code: str | None
    confidence: Confidence
    """Where the facts come from: authors' code, the paper, a third party, general knowledge, or the abstract alone."""

    def __call__(self, *args: object, **kwargs: object) -> Recipe:
        return self.make(*args, **kwargs).replace(name=self.name)

    @property
    def summary(self) -> str:
        """The first sentence of the docstring."""
        return " ".join((inspect.getdoc(self.make) or "").split("\n\n")[0].split())

    @property
    def source(self) -> str:
        """Where to read more: the paper, or the authors' code."""
        return f"arXiv:{self.arxiv}" if self.arxiv else self.code or "textbook"

    @property
    def hyperparameters(self) -> dict[str, inspect.Parameter]:
        """The arguments of the method by name, with their defaults."""
        return dict(inspect.signature(self.make).parameters)


_METHODS: dict[str, Method] = {}


def method(
    *,
    parent: Method | None = None,
    arxiv: str | None = None,
    code: str | None = None,
    confidence: Confidence = "paper",
) -> Callable[[Callable[..., Recipe]], Method]:
    """Register a function as a method under its own name, with hyphens for underscores; its family is the folder it
    lies in."""

    def register(make: Callable[..., Recipe]) -> Method:
        name = make.__name__.replace("_", "-")
        if name in _METHODS:
            raise ValueError(f"a method called {name!r} exists already, in {_METHODS[name].make.__module__}")
        family = f"own.own.{make.__module__}".removeprefix("own.own.policyopt.methods.").split(".")[0].replace("_", "-")
        found = Method(make, name, family, parent.name if parent else None, arxiv, code, confidence)
        update_wrapper(found, make, updated=())
        _METHODS[name] = found
        return found

    return register


def methods() -> dict[str, Method]:
    """All methods by name, in alphabetical order."""
    import policyopt.methods as package

    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        importlib.import_module(module.name)
    return dict(sorted(_METHODS.items()))


def get_method(name: str) -> Method:
    """The method called ``name``. Raises ``KeyError`` that lists the nearest names."""
    known = methods()
    if name in known:
        return known[name]
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.3)
    raise KeyError(
        f"no method is called {name!r}; nearest: {', '.join(close) or 'none'} (`policyopt list` shows all {len(known)})"
    )
