"""Comparing from Python and from the command line: run the grid, say what it found, leave the page."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Unpack

import rich.console
from pydantic import ValidationError

from policyopt.comparing.compared import comparison
from policyopt.comparing.grid import Contender, Grid, digest, read_budget, spread
from policyopt.comparing.page import write_page
from policyopt.comparing.results import Comparison
from policyopt.comparing.runner import carry_out
from policyopt.comparing.tables import table, write_tables
from policyopt.comparing.terminal import Watch, show
from policyopt.data.places import label as short_task
from policyopt.errors import UserError, explain
from policyopt.own import resolve
from policyopt.recipe import Recipe
from policyopt.training.config import TrainConfig, check_names, updated
from policyopt.training.settings import Settings

if TYPE_CHECKING:
    from pandas import DataFrame

Asked: TypeAlias = str | Path | Recipe
"""A recipe, or the name of a method: ``"grpo"``, ``"my.py:name"``, ``"recipe.yaml"``."""


@dataclass(frozen=True)
class Compared:
    """What a comparison found; ``table, page = compare(...)`` takes it apart."""

    found: Comparison
    page: Path
    """The page."""

    @property
    def table(self) -> DataFrame:
        """One row for each metric and contender: mean with its interval, difference to the first with its interval, p-values, and
        the words."""
        from pandas import DataFrame

        return DataFrame(table(self.found)).set_index(["metric", "contender"])

    def __iter__(self) -> Iterator[Any]:
        return iter((self.table, self.page))

    def __str__(self) -> str:
        out = rich.console.Console(highlight=False, force_jupyter=False, width=120)
        with out.capture() as said:
            show(self.found, out)
        return said.get().rstrip()

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        from policyopt.notebook import html_of

        return html_of(lambda out: show(self.found, out), width=120)


def compare(
    contenders: Sequence[Asked] | Mapping[str, Asked | tuple[Asked, Mapping[str, Any]]],
    *,
    seeds: int | Sequence[int] = 5,
    budget: str | None = None,
    target: float | None = None,
    jobs: int | None = None,
    quiet: bool = False,
    **settings: Unpack[Settings],
) -> Compared:
    """Train each contender with each seed and say how they differ: ``compare(["grpo", "gspo"], task="countdown")``.

    Args:
        contenders: Recipes or names of methods; by label, each alone or with settings of its own:
            ``{"plain": "grpo", "hot": ("grpo", {"optim": {"lr": 3e-4}})}``. The first is what the others are compared to.
        seeds: How many, or which.
        budget: ``"steps=60"``, ``"tokens=200000"``, ``"seconds=90"``; ``"tokens"`` alone is what the first contender takes for its
            steps. Unset: the ``steps`` of the settings.
        target: Held-out accuracy whose cost in tokens and seconds is measured.
        jobs: How many runs at once; unset: as many as there are cores, and memory for.
        quiet: Print nothing.
        settings: The fields of :class:`~policyopt.training.config.TrainConfig`, the same for all; ``out`` is the folder of the
            comparison, unset: one whose name follows from all this, so that the same call goes on with it.

    Raises :class:`~policyopt.errors.UserError` before any run when something is wrong with them.
    """
    if "seed" in settings:
        raise UserError("seed: a comparison has several seeds: seeds=5, or seeds=(3, 7, 11) for these")
    shared: dict[str, Any] = {**settings}
    out = shared.pop("out", None)
    named = contenders if isinstance(contenders, Mapping) else {_label(c): c for c in contenders}
    if len(named) < len(contenders):
        raise UserError("two contenders have one name: give them as a mapping, by label")
    made = tuple(Contender(name, _config(name, c, shared)) for name, c in named.items())
    which = tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds)
    grid = Grid(made, which, read_budget(budget or "steps"), target)
    return carried(grid, None if out is None else Path(out), jobs, quiet)


def carried(grid: Grid, out: Path | None, jobs: int | None, quiet: bool = False) -> Compared:
    """Carry out a grid and leave its page."""
    grid.check()
    out = out or Path("runs") / f"compare-{short_task(grid.first.config.task)}-{digest(grid.to_dict())}"
    screen = rich.console.Console(quiet=True) if quiet else rich.console.Console(highlight=False)
    screen.print(f"{len(grid.contenders)} contenders, {len(grid.seeds)} seeds, in {out}", soft_wrap=True)
    prepare(grid)
    with Watch(screen, quiet) as watch:
        failed = carry_out(grid, out, jobs=jobs, tell=watch)
    found = comparison(grid, out, failed)
    if not found.runs:
        raise UserError(f"no run of {out} came to its end: {next(iter(found.missing.values()))}")
    page = write_page(found)
    write_tables(found)
    return Compared(found, page)


def prepare(grid: Grid) -> None:
    """Find what is wrong with a contender before any run begins, and warm the embedded model up once for all.

    Raises :class:`~policyopt.errors.UserError` naming the contender.
    """
    from policyopt.engine import check_engine
    from policyopt.training.console import Console
    from policyopt.training.prompts import check_solutions
    from policyopt.training.run import await_judge, judging, loaded
    from policyopt.training.setup import check_carried, engine_kind, located

    with Console({}, 0, quiet=not sys.stdout.isatty()) as console:
        for c in grid.contenders:
            try:
                check_carried(c.config)
                task = loaded(c.config)
                check_engine(c.config.recipe, engine_kind(c.config), c.config.sampler)
                if "solutions" in c.config.recipe.source.uses:
                    check_solutions(task.train, c.config.recipe.name)
                with judging(c.config.recipe, task, c.config.judging) as judge:
                    await_judge(c.config.recipe, judge)
                located(c.config, task, console.task)
            except UserError as error:
                raise UserError(f"{c.label}: {error}") from error


def _label(contender: Asked) -> str:
    return contender.name if isinstance(contender, Recipe) else str(contender)


def _config(label: str, given: Any, settings: Mapping[str, Any]) -> TrainConfig:
    own: dict[str, Any] = {**given[1]} if isinstance(given, tuple) else {}
    asked = given[0] if isinstance(given, tuple) else given
    recipe = asked if isinstance(asked, Recipe) else resolve(asked)()
    fields: dict[str, Any] = {"recipe": recipe, **settings}
    check_names(TrainConfig, [*fields, *own])
    try:
        config = updated(TrainConfig(**fields), own) if own else TrainConfig(**fields)
    except ValidationError as error:
        raise UserError(f"{label}: {explain(error)}") from error
    return config if "eval" in {**settings, **own} else spread(config)
