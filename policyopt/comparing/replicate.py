"""Claims put to the test: each method against the one that it says it beats, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from policyopt.claims import Claim, Effect
from policyopt.comparing.grid import Cell, Contender, Grid
from policyopt.comparing.measures import measure
from policyopt.comparing.replications import Finding, Replication, Verdict
from policyopt.comparing.results import Interval
from policyopt.comparing.runner import Progress, Tell, crew, finished, run_all
from policyopt.comparing.statistics import difference, interval
from policyopt.errors import UserError


@dataclass(frozen=True)
class Trial:
    """A claim and the two that it is about, each as a contender; none for a claim that cannot be shown here."""

    method: str
    claim: Claim
    ours: Contender | None = None
    theirs: Contender | None = None

    def grid(self, seeds: Sequence[int]) -> Grid:
        """Both over the seeds; what the claim is held against comes first."""
        assert self.ours is not None and self.theirs is not None
        return Grid((self.theirs, self.ours), tuple(seeds))


def verdict(effect: Effect, found: Interval) -> Verdict:
    """Whether the interval of a difference lies beyond the least effect, short of it, or around it."""
    sign = 1.0 if effect.direction == "higher" else -1.0
    low, high = sorted((sign * found.low, sign * found.high))
    if not np.isfinite([low, high]).all():
        return "undecided"
    return "supported" if low >= effect.least else "not supported" if high < effect.least else "undecided"


def all_of(verdicts: Sequence[Verdict]) -> Verdict:
    """A claim is supported where all of its effects are, and not supported where one is not."""
    if "not supported" in verdicts:
        return "not supported"
    return "undecided" if "undecided" in verdicts or not verdicts else "supported"


def run_trials(
    trials: Sequence[Trial], seeds: Mapping[str, Sequence[int]], out: Path, *, jobs: int | None, tell: Tell
) -> dict[str, str]:
    """Run what is missing for some claims, over the ``seeds`` of each method. Returns the cells that did not end, and why.

    Runs that claims share, such as those of GRPO on one testbed, are carried out once. The first seeds of all come before
    the second ones, so that whatever is there when it is ended is spread over all claims.
    """
    grids = {t.method: t.grid(seeds[t.method]) for t in trials if t.ours is not None}
    for method, grid in grids.items():
        try:
            grid.check()
        except UserError as error:
            raise UserError(f"the claim of {method}: {error}") from error
    cells: dict[str, Cell] = {}
    for seed in sorted({s for grid in grids.values() for s in grid.seeds}):
        for grid in grids.values():
            cells |= {c.folder: c for c in grid.opening() if c.seed == seed}
    if not cells:
        return {}
    progress = Progress(len(cells))
    with crew([*cells.values()], out, jobs) as (who, at_once):
        run_all(who, [*cells.values()], out, at_once, progress, tell)
    return progress.failed


def replication(trial: Trial, seeds: Sequence[int], out: Path) -> Replication:
    """What has come of a claim so far, from the runs in a folder."""
    claim = trial.claim
    if trial.ours is None or trial.theirs is None:
        return Replication(trial.method, claim.says, "cannot show here", reason=claim.beyond)
    grid = trial.grid(seeds)
    runs = finished(grid.opening(), out)
    ours, theirs = trial.ours.label, trial.theirs.label
    both = [s for s in grid.seeds if (ours, s) in runs and (theirs, s) in runs]
    effects, reasons = [], []
    for effect in claim.effects:
        found = measure(effect.metric, runs, (theirs, ours), both) if both else None
        if found is None or len(both) < 2:
            reasons.append(f"{effect.metric} of {len(both)} seeds is known" if both else "no seed of both is finished")
            continue
        a, b = found.values[ours], found.values[theirs]
        moved = difference(a, b).interval
        if not np.isfinite([moved.mean, moved.low, moved.high]).all():
            reasons.append(f"{effect.metric} is not measured of both")
            continue
        effects.append(
            Finding(
                effect.metric, effect.direction, effect.least, found.format, interval(a).mean, interval(b).mean, moved,
                verdict(effect, moved),
            )
        )  # fmt: skip
    minutes = sum(float(run.summary.get("seconds") or 0) for run in runs.values()) / 60
    return Replication(
        trial.method, claim.says, outcome(effects, reasons, len(both)), claim.testbed, theirs,
        len(both), round(minutes, 1), tuple(effects), "; ".join(reasons), told(claim),
    )  # fmt: skip


def outcome(effects: Sequence[Finding], reasons: Sequence[str], seeds: int) -> Verdict:
    """The verdict on a claim from those on its effects, of which some may not have been measured."""
    if not seeds:
        return "not run yet"
    return "undecided" if reasons else all_of([e.verdict for e in effects])


def told(claim: Claim) -> str:
    """The options of a claim's runs, in words."""
    sides = (("both", claim.both), ("ours", claim.ours), ("theirs", claim.theirs))
    return "; ".join(
        f"{name}: {' '.join(f'{k} {v}' for k, v in options.items())}" for name, options in sides if options
    )
