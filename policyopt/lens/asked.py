"""The lens from Python: what the commands ``explain`` and ``check`` say, of names and of recipes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from rich.console import Console

from policyopt.lens.check import check as checked
from policyopt.lens.check import render
from policyopt.lens.check.files import check_named
from policyopt.lens.check.report import Report
from policyopt.lens.explain import Difference, Explanation
from policyopt.lens.explain import differences as differing
from policyopt.lens.explain import explain as explained
from policyopt.lens.explain_terminal import show
from policyopt.notebook import html_of
from policyopt.own import resolve
from policyopt.recipe import Recipe
from policyopt.registry import Method

T = TypeVar("T")
Asked = str | Path | Recipe | Method
"""A recipe, a method, or the name of one: ``"grpo"``, ``"my.py"``, ``"my.py:name"``, ``"recipe.yaml"``."""


@dataclass(frozen=True)
class Answer(Generic[T]):
    """What was found; printed, or shown by a notebook, it reads as the command's."""

    found: T
    """The thing itself."""
    show: Callable[[T, Console], object]
    """Prints it."""

    def __str__(self) -> str:
        out = Console(highlight=False, force_jupyter=False, force_terminal=sys.stdout.isatty())
        with out.capture() as said:
            self.show(self.found, out)
        return said.get().rstrip()

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return html_of(lambda out: self.show(self.found, out), width=120)


def explain(method: Asked, vs: Asked | None = None) -> Answer[Explanation]:
    """What a method is, what differs from its parent (and from ``vs``), what it costs, and the weight that it gives to every
    token of a fixed batch. ``found`` is the :class:`~policyopt.lens.explain.Explanation`.

    Raises :class:`~policyopt.errors.UserError` for a name that is none.
    """
    made = None if isinstance(method, Recipe) else _method(method)
    return Answer(explained(_recipe(method), None if vs is None else _recipe(vs), method=made), show)


def check(method: Asked) -> Answer[list[Report]]:
    """Properties of a method, measured on random batches in float64; of a file of your own, of all that is in it. ``found``
    are the :class:`~policyopt.lens.check.report.Report` of each.

    Raises :class:`~policyopt.errors.UserError` for a name that is none.
    """
    named = isinstance(method, str | Path)
    reports = check_named(str(method)) if named else [checked(_recipe(method))]
    return Answer(reports, _show_all)


def differences(method: Asked, other: Asked) -> tuple[Difference, ...]:
    """Where the recipes of two methods differ, part by part and field by field.

    Raises :class:`~policyopt.errors.UserError` for a name that is none.
    """
    return tuple(differing(_recipe(method), _recipe(other)))


def _method(method: str | Path | Method) -> Method:
    return method if isinstance(method, Method) else resolve(method)


def _recipe(method: Asked) -> Recipe:
    return method if isinstance(method, Recipe) else _method(method)()


def _show_all(reports: Sequence[Report], out: Console) -> None:
    for report in reports:
        render.show(report, out)
