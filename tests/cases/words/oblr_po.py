"""What cases call things in OBLR-PO."""

from __future__ import annotations

from typing import Any

import torch

from policyopt.engine.local.noise import signal_and_noise
from policyopt.lens.case import Run
from policyopt.lens.given import build_batch
from policyopt.methods.baseline.oblr_po import SCORE, factor
from policyopt.rows import FIXED, Batch

from ._grown import on_batch

FREE = ("score_sqnorm", "sample_grad")


def _weighed(run: Run) -> Batch:
    """The batch with the squared score norm of each row on its first token."""
    batch = build_batch({name: x for name, x in run.given.items() if name not in FREE}, run.params, run.columns)
    norms = torch.zeros_like(batch.mask)
    norms[:, 0] = torch.tensor(run.given["score_sqnorm"], dtype=torch.float64)
    return batch.with_statistics({FIXED + SCORE.key: norms})


def _baseline(run: Run) -> dict[str, float]:
    found = run.part("advantage").baseline(run.batch).tolist()
    return {str(g): b for g, b in zip(run.given["group"], found, strict=True)}


def _measured(run: Run) -> tuple[float, float]:
    gradients = torch.tensor(run.given["sample_grad"], dtype=torch.float64)
    whole = float(gradients.mean(0).square().sum())
    signal, noise = signal_and_noise(gradients.square().sum(-1).tolist(), whole)
    return max(signal, 0.0), noise


def _snr(run: Run) -> float:
    signal, noise = _measured(run)
    return signal / noise


def _lr(run: Run) -> Any:
    return run.params["lr_max"] * factor(*_measured(run))


COLUMNS = dict.fromkeys(FREE, ("", "free"))
PARAMS = {"lr_max": None}
KEYS = on_batch(
    _weighed,
    {
        "baseline": _baseline,
        "signal": lambda run: _measured(run)[0],
        "noise": lambda run: _measured(run)[1],
        "snr": _snr,
        "lr": _lr,
    },
)
