"""What cases call things in CPO."""

from __future__ import annotations

from ._pairs import GIVEN as GIVEN
from ._pairs import keys, preferences


def _nll(run):  # type: ignore[no-untyped-def]
    (likelihood,) = run.recipe.regularizers
    return likelihood(run.credited) / likelihood.coef


KEYS = keys(per_pair=preferences) | {"nll": _nll}
