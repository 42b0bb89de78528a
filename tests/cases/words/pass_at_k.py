"""What cases call things in pass@k training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from policyopt.lens.case import Run
from policyopt.methods.credit.pass_at_k import MaxAtK
from policyopt.training.evaluate import pass_at_k


def _estimates(given: Mapping[str, Any]) -> dict[str, Any]:
    n, ks = given["num_samples"], given["params"]["k"]
    return {pass_at_k.__name__: [[pass_at_k(n, c, k) for k in ks] for c in given["num_correct"]]}


def _weights(run: Run, leave_one_out: bool) -> Tensor:
    return MaxAtK(k=run.part("advantage").k, leave_one_out=leave_one_out).weights(run.batch)


KEYS = {
    "weight": lambda run: _weights(run, False),
    "weight_loo_minus_one": lambda run: _weights(run, True),
}
CASES = {"metric": _estimates}
