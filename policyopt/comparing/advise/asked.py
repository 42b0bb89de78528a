"""Advice from Python."""

from __future__ import annotations

from pathlib import Path

from policyopt.comparing.advise.diagnosis import Diagnosis, diagnose
from policyopt.comparing.advise.show import show
from policyopt.lens.asked import Answer
from policyopt.training.logging import read_run
from policyopt.training.result import Result


def advise(*runs: str | Path | Result) -> Answer[list[Diagnosis]]:
    """What is seen in the logs of runs, and which methods and settings address it; printed, or shown by a notebook, it reads as
    the command's. ``found`` has a :class:`~policyopt.comparing.advise.diagnosis.Diagnosis` of each.

    Raises :class:`~policyopt.errors.UserError` for a folder that is no run, and for a run without steps.
    """
    folders = [run.out if isinstance(run, Result) else Path(run) for run in runs]
    return Answer([diagnose(read_run(folder)) for folder in folders], show)
