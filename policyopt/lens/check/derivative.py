"""Is a gradient the derivative of its function? Autograd against finite differences, stop-gradients held fixed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

STEPS = (1e-6, 1e-8)
"""Of the finite difference; a kink that lies inside the first lies outside the second."""
TOLERANCE = 1e-4

_CUTS = (Tensor.detach, torch.detach, Tensor.data.__get__)  # type: ignore[attr-defined]


class Held(TorchFunctionMode):
    """Holds what is cut out of the graph, by ``detach`` or under ``no_grad``, at its values of the first run.

    What remains is the function that the gradient belongs to. The function must take the same steps in every run.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first: list[Tensor] = []
        self.again: Iterator[Tensor] | None = None

    def run(self, f: Callable[[], Tensor]) -> Tensor:
        """``f()``; the first run is kept, later ones repeat its stop-gradients."""
        with self:
            found = f()
        self.again = iter(self.first)
        return found

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        in_place = bool(args) and found is args[0]
        cut = func in _CUTS or not torch.is_grad_enabled()
        if not cut or in_place or not isinstance(found, Tensor):
            return found
        if self.again is not None:
            return next(self.again, found).clone()
        self.first.append(found.detach().clone())
        return found


def derivative_error(
    f: Callable[[Mapping[str, Tensor]], Tensor], leaves: Mapping[str, Tensor], mask: Tensor, seed: int = 0
) -> float:
    """The worst error of the gradient of the scalar ``f`` along a random direction of each leaf [N, T], relative to the
    size of that gradient (or of the finite difference, where it is larger)."""
    held, g = Held(), torch.Generator().manual_seed(seed)
    free = {name: x.detach().clone().requires_grad_() for name, x in leaves.items()}
    value = held.run(lambda: f(free))
    if value.grad_fn is None:
        found: tuple[Tensor | None, ...] = (None,) * len(free)
    else:
        found = torch.autograd.grad(value, list(free.values()), allow_unused=True)
    worst = 0.0
    for (name, x), gradient in zip(free.items(), found, strict=True):
        direction = torch.randn(x.shape, generator=g, dtype=x.dtype) * mask
        slope = 0.0 if gradient is None else float((gradient * direction).sum())

        def at(step: float, name: str = name, x: Tensor = x, direction: Tensor = direction) -> float:
            moved = {**free, name: (x + step * direction).detach().requires_grad_()}
            return float(held.run(lambda: f(moved)).detach())

        def error(step: float, slope: float = slope, at: Callable[[float], float] = at) -> float:
            size = max(abs(float(value.detach())) * 1e-3, abs(slope))
            measured = (at(step) - at(-step)) / (2 * step)
            return abs(measured - slope) / max(size, abs(measured), 1e-12)

        first = error(STEPS[0])
        worst = max(worst, first if first < TOLERANCE else min(first, error(STEPS[1])))
    return worst
