"""Where a program would wait for a device: calls that need a number of it on the side of Python."""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

import policyopt

READS = {
    "item", "tolist", "cpu", "numpy", "__bool__", "__float__", "__int__", "__index__", "__contains__", "is_nonzero", "equal",
    "allclose", "nonzero", "argwhere", "masked_select", "unique", "unique_consecutive", "__array__",
}  # fmt: skip
"""What gives Python numbers, or tensors whose size is a number of the device."""


class Waits(TorchFunctionMode):
    """Counts them by place, ``file:function``: those of the package itself."""

    def __init__(self) -> None:
        super().__init__()
        self.places: Counter[str] = Counter()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        if (
            name in READS
            or (name in ("__getitem__", "__setitem__") and _by_truth(args[1]))
            or _unknown(name, args, kwargs)
        ):
            self.places[f"{_place()} {name}"] += 1
        return func(*args, **(kwargs or {}))


def _by_truth(index: Any) -> bool:
    """A boolean index, whose number of places nobody knows."""
    return any(
        isinstance(i, Tensor) and i.dtype == torch.bool for i in (index if isinstance(index, tuple) else (index,))
    )


def _unknown(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None) -> bool:
    """A call whose result has a size that only the device knows."""
    if name == "repeat_interleave":
        return any(isinstance(x, Tensor) for x in args[1:]) and "output_size" not in (kwargs or {})
    return name == "where" and len(args) == 1


def _place() -> str:
    root = str(Path(policyopt.__file__).parent)
    frames = [f for f in traceback.extract_stack() if f.filename.startswith(root)]
    return f"{Path(frames[-1].filename).relative_to(root)}:{frames[-1].name}" if frames else "elsewhere"
