"""What cases call things in HBPO."""

from __future__ import annotations

from policyopt.lens.case import Run
from policyopt.parts import Normalise


def _inter(run: Run) -> object:
    return Normalise()(run.shaped)


def _intra(run: Run) -> object:
    part = run.part("advantage")
    return part.intra * part.shortfall(run.shaped)


COLUMNS = {"budget": ("announced", "row")}
PARAMS = {"L_max": "length_max"}
KEYS = {"inter_advantage": _inter, "intra_advantage": _intra}
