"""Cases that describe their rows in words of their own: everything is worked out on the batch made of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from policyopt.lens.case import KEYS, Run
from policyopt.rows import Batch

Key = Callable[[Run], Any]


def on_batch(grow: Callable[[Run], Batch], keys: Mapping[str, Key]) -> dict[str, Key]:
    """What a case may expect, ``keys`` included, worked out on the batch that ``grow`` makes of the given columns."""

    def on(compute: Key) -> Key:
        def found(run: Run) -> Any:
            if "grown" not in run.__dict__:
                run.__dict__["batch"] = run.__dict__["grown"] = grow(run)
            return compute(run)

        return found

    return {name: on(compute) for name, compute in {**KEYS, **keys}.items()}


def table(rows: Sequence[Sequence[float]], dtype: torch.dtype = torch.long) -> Tensor:
    """Lists of unlike length as a column of nodes, with 0 where a row passes no more."""
    width = max(map(len, rows), default=0)
    return torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], dtype=dtype)
