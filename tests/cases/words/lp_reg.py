"""Lp-Reg: the words of its cases."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

COLUMNS = {"old_logits": ("old", "logits")}


def _proxy(run: Any) -> list[list[float | None]]:
    """The proxy's log-probabilities, null where it has cut the token off and on padding."""
    logp = run.batch.fixed(run.part("surrogate").proxy)
    shown = torch.where(run.batch.mask.bool(), logp, -torch.inf)
    return [[x if x > -torch.inf else None for x in row] for row in shown.tolist()]


def _places(run: Any, picked: Tensor) -> Any:
    return run.all_rows(picked).nonzero().tolist()


KEYS: Mapping[str, Callable[[Any], Any]] = {
    "old_logp": lambda run: run.batch.old_logp,
    "proxy_logp": _proxy,
    "low_prob_tokens": lambda run: _places(run, run.part("surrogate").unlikely(run.credited)),
    "regularised_tokens": lambda run: _places(run, run.part("surrogate").shielded(run.credited)),
}
