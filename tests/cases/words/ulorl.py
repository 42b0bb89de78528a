"""UloRL: the words of its cases."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

COLUMNS = {
    "segment": ("", "free"),
    "segment_old_logp": ("old_logp", "token"),
    "mean_entropy": ("sampled_entropy", "token"),
}

KEYS: Mapping[str, Callable[[Any], Any]] = {
    "dropped": lambda run: run.all_rows(run.part("weight.SelectedWeight").tokens(run.credited).to(run.batch.mask)),
}
