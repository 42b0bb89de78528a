"""What the cases of kdrl call things."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from policyopt.lens.case import Run
from policyopt.objective import token_gradients

from ._scheduled import scheduled
from .grpo_d import COLUMNS as COLUMNS
from .grpo_d import coef

HERE = Path(__file__).parent

ROWS = {"none": "all", "response": "wrong", "group": "unsolved"}


def judged(run: Run) -> Run:
    """The case with verdicts: it gives them as rewards."""
    return Run(run.method, run.what, {**run.given, "correct": [float(r > 0) for r in run.given["reward"]]}, HERE)


def result(run: Run) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss and gradient at the step of the case."""
    run = judged(run)
    return token_gradients(scheduled(run.recipe, run.given["step"]), run.credited, {"logp": run.credited.logp})


PARAMS = {
    "beta_init": "kl_coef",
    "beta_min": "kl_min",
    "beta_decay": "kl_decay",
    "estimator": "kl",
    "masking": lambda value: {"rows": ROWS.get(value, value)},
}
KEYS = {
    "advantage": lambda run: judged(run).credited.advantage,
    "beta": lambda run: coef(run.recipe, run.given["step"]),
    "kd_keep": lambda run: run.part("regularizers.KL").picked(judged(run).credited),
    "loss": lambda run: result(run)[0],
    "dloss_dlogp": lambda run: result(run)[1]["logp"],
}
