"""What cases call things in BNPO."""

from __future__ import annotations

from torch import Tensor

from policyopt.lens.case import Run
from policyopt.methods.credit.bnpo import BetaNormalise, bnpo


def _one(run: Run) -> BetaNormalise:
    found: BetaNormalise = run.recipe.advantage  # type: ignore[assignment]
    return found


def _second(run: Run) -> Tensor:
    return _one(run)(run.batch.replace(reward=run.batch.component("second")))


def _decomposed(run: Run) -> Tensor:
    advantage = bnpo(components=("reward", "second")).advantage
    assert advantage is not None
    return advantage(run.batch)


COLUMNS = {"reward2": ("component[second]", "row")}
KEYS = {
    "alpha": lambda run: float(_one(run).shape(run.batch)[0][0]),
    "beta": lambda run: float(_one(run).shape(run.batch)[1][0]),
    "weight": lambda run: _one(run).weight(run.batch),
    "advantage_second": _second,
    "advantage_decomposed": _decomposed,
}
