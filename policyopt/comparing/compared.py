"""A comparison from its folder: the runs that are finished, what was measured of them, and what differs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from policyopt.comparing.grid import Grid, grid_from_dict
from policyopt.comparing.measures import measures
from policyopt.comparing.results import Comparison
from policyopt.comparing.runner import PLAN, finished, following
from policyopt.comparing.statistics import lines
from policyopt.errors import UserError
from policyopt.files import read_json
from policyopt.training.logging import RunRecord


def read_grid(out: Path) -> Grid:
    """The grid of a comparison. Raises :class:`~policyopt.errors.UserError` for a folder that is none."""
    if not (out / PLAN).is_file():
        raise UserError(f"{out}: no comparison lies there ({PLAN} is missing)")
    return grid_from_dict(read_json(out / PLAN))


def comparison(grid: Grid, out: Path, failed: Mapping[str, str] | None = None) -> Comparison:
    """What a comparison has found so far; ``failed`` says by folder why cells did not end."""
    cells = [*grid.opening(), *following(grid, out)]
    runs = finished(cells, out)
    why = {(c.contender, c.seed): (failed or {}).get(c.folder) for c in cells}
    every = ((c.label, seed) for c in grid.contenders for seed in grid.seeds)
    missing = {key: why.get(key) or "not run yet" for key in every if key not in runs}
    labels = tuple(c.label for c in grid.contenders)
    found = measures(runs, labels, grid.seeds, grid.target)
    return Comparison(
        out, facts(grid, runs), labels, grid.seeds, runs, missing, found, lines(found, labels), differing(grid)
    )


def facts(grid: Grid, runs: Mapping[tuple[str, int], RunRecord]) -> tuple[tuple[str, str], ...]:
    """What is the same for all."""
    config = grid.first.config
    asked = next((run.summary["after"].get("n") for run in runs.values() if run.summary.get("after")), None)
    amount = f"{config.steps} steps" if grid.budget.amount is None and grid.budget.unit == "steps" else str(grid.budget)
    found = {
        "Task": config.task,
        "Model": config.model,
        "Budget of a run": amount,
        "Responses a step": "" if len({c.config.batch for c in grid.contenders}) > 1 else str(config.batch),
        "Seeds": ", ".join(map(str, grid.seeds)),
        "Held-out questions": "" if asked is None else f"{asked}, the same for all",
    }
    return tuple((name, value) for name, value in found.items() if value)


def differing(grid: Grid) -> dict[str, dict[str, str]]:
    """By dotted path, what each contender has where not all have the same."""
    flat = {c.label: dict(_leaves(c.config.to_dict())) for c in grid.contenders}
    paths = list(dict.fromkeys(path for leaves in flat.values() for path in leaves))
    rows = {path: {label: leaves.get(path, "") for label, leaves in flat.items()} for path in paths}
    skipped = {"out", "seed", "recipe.name"}
    return {path: row for path, row in rows.items() if len(set(row.values())) > 1 and path not in skipped}


def _leaves(x: Any, path: str = "") -> list[tuple[str, str]]:
    """The leaves of a tree of plain data by dotted path; parts in a list go by their class."""
    if isinstance(x, Mapping):
        return [leaf for k, v in x.items() for leaf in _leaves(v, f"{path}.{k}" if path else str(k))]
    if isinstance(x, list) and all(isinstance(v, Mapping) for v in x):
        return [leaf for i, v in enumerate(x) for leaf in _leaves(v, f"{path}.{v.get('label') or v.get('part') or i}")]
    return [(path, x if isinstance(x, str) else json.dumps(x, default=str))]
