"""The symptoms of runs, and of the runs of a comparison."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from policyopt.claims import recorded
from policyopt.comparing.advise.condition import Reading, course, end, start, steps
from policyopt.comparing.advise.symptoms import SYMPTOMS, Symptom
from policyopt.errors import UserError
from policyopt.training.logging import RunRecord, read_run

CELLS = "cells"
"""The folder of a comparison in which its runs lie, each called after its contender and its seed."""


@dataclass(frozen=True)
class Moved:
    """A metric from the start to the end of a run."""

    metric: str
    start: float
    end: float


@dataclass(frozen=True)
class Seen:
    """A symptom that a run has, with the numbers that show it."""

    symptom: Symptom
    readings: tuple[Reading, ...]
    beside: tuple[Moved, ...]
    """What else is worth a look."""
    methods: tuple[str, ...]
    """The methods that address it, without the run's own."""


@dataclass(frozen=True)
class Diagnosis:
    """What is seen in the log of a run."""

    run: Path
    method: str
    """Of the run; empty where it has no name."""
    task: str
    steps: int
    seen: tuple[Seen, ...]
    looked: tuple[Moved, ...]
    """All that the conditions of symptoms read of the run."""

    def to_dict(self) -> dict[str, Any]:
        """It as plain data for JSON; a number that is none is null."""
        return {
            "run": str(self.run),
            "method": self.method,
            "task": self.task,
            "steps": self.steps,
            "symptoms": [
                advice(s.symptom, s.methods)
                | {
                    "seen": [
                        {
                            "metric": r.metric,
                            "measure": r.condition.measure,
                            "start": r.start,
                            "end": r.end,
                            "value": r.value if math.isfinite(r.value) else None,
                            "above": r.condition.above,
                            "below": r.condition.below,
                            "per": r.condition.per,
                        }
                        for r in s.readings
                    ],
                    "beside": [vars(m) for m in s.beside],
                }
                for s in self.seen
            ],
            "looked": [vars(m) for m in self.looked],
        }


def advice(symptom: Symptom, methods: Sequence[str] | None = None) -> dict[str, Any]:
    """What addresses a symptom, as plain data; each method with what came of its claim, or nothing where nothing is known."""
    known = recorded()
    return {
        "name": symptom.name,
        "says": symptom.says,
        "first": symptom.first,
        "settings": dict(symptom.settings),
        "methods": [
            {"method": m, "why": symptom.methods[m], "replication": known.get(m)}
            for m in (ranked(symptom.methods) if methods is None else methods)
        ],
        "worked": symptom.worked,
    }


def ranked(methods: Iterable[str]) -> list[str]:
    """Methods in their order, but first those whose claim came out, and last those whose claim did not."""
    known = recorded()
    rank = {"supported": 0, "not supported": 2}
    return sorted(methods, key=lambda m: rank.get(str(known.get(m, {}).get("verdict")), 1))


def diagnose(run: RunRecord) -> Diagnosis:
    """The symptoms that a run shows. Raises :class:`~policyopt.errors.UserError` where it has made no step."""
    made = steps(run)
    if not made:
        raise UserError(
            f"{run.folder}: no step is logged yet (metrics.jsonl), so there is nothing to see: wait for the first steps"
        )
    recipe = run.config.get("recipe")
    method = run.summary.get("method") or (recipe.get("name") if isinstance(recipe, dict) else None)
    task = run.summary.get("task") or run.config.get("task")
    seen = tuple(s for symptom in SYMPTOMS if (s := _seen(symptom, run, str(method))))
    read = dict.fromkeys(m for symptom in SYMPTOMS for c in symptom.when for m in c.metrics)
    return Diagnosis(run.folder, str(method or ""), str(task or ""), made, seen, _moved(run, [*read]))


def _seen(symptom: Symptom, run: RunRecord, method: str) -> Seen | None:
    readings = [c.read(run) for c in symptom.when]
    there = tuple(r for r in readings if r is not None and r.holds)
    if not there or len(there) < len(readings):
        return None
    told = {r.metric for r in there}
    beside = tuple(m for m in _moved(run, symptom.shown) if m.metric not in told)
    return Seen(symptom, there, beside, tuple(m for m in ranked(symptom.methods) if m != method))


def _moved(run: RunRecord, metrics: Sequence[str]) -> tuple[Moved, ...]:
    found = (course(run, name) for name in metrics)
    return tuple(Moved(name, start(values), end(values)) for name, values in found if values)


# Folders -------------------------------------------------------------------------------------------------------------


def is_comparison(folder: Path) -> bool:
    """Whether a folder is that of a comparison."""
    return (folder / CELLS).is_dir()


def diagnose_cells(folder: Path) -> dict[str, list[Diagnosis]]:
    """By contender, the symptoms of each run of a comparison that has made a step.

    Raises :class:`~policyopt.errors.UserError` where none has.
    """
    found: dict[str, list[Diagnosis]] = {}
    for cell in sorted((folder / CELLS).glob("*/metrics.jsonl")):
        run = read_run(cell.parent)
        if steps(run):
            contender, _, _ = run.folder.name.rpartition("-seed")
            found.setdefault(contender or run.folder.name, []).append(diagnose(run))
    if not found:
        raise UserError(f"{folder}: no run of this comparison has made a step yet: go on with it")
    return found
