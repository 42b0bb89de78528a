"""Models that rest in main memory, and are on the device only while they are read."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def rested(x: Tensor) -> Tensor:
    """Numbers in main memory, from where a GPU fetches them without a detour; those that are there already are themselves."""
    return x if x.device.type == "cpu" else x.cpu().pin_memory() if x.is_cuda else x.cpu()


def fetched(x: Tensor, device: torch.device) -> Tensor:
    """A copy on a device."""
    return x.to(device, non_blocking=True)


class Resting:
    """The parameters of a frozen model, in main memory but for the time in which somebody is inside: ``with resting: ...``, also
    within one another.

    Buffers stay where they are, and nothing is copied back: what changes the model, as a moving reference is changed, does so
    while it rests.
    """

    def __init__(self, model: nn.Module) -> None:
        places = [(p, p.device, rested(p.data)) for p in model.parameters()]
        self._away = [(p, device, home) for p, device, home in places if home.data_ptr() != p.data_ptr()]
        self._inside = 0
        self._rest()

    @property
    def moves(self) -> bool:
        """Whether there is anything to fetch: not on a CPU."""
        return bool(self._away)

    def _rest(self) -> None:
        for p, _, home in self._away:
            p.data = home

    def __enter__(self) -> None:
        if not self._inside:
            for p, device, home in self._away:
                p.data = fetched(home, device)
        self._inside += 1

    def __exit__(self, *error: Any) -> None:
        self._inside -= 1
        if not self._inside:
            self._rest()
