"""A key-value cache of slots: each row of a batch has its own length, and rows come and go while others go on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import CacheLayerMixin, DynamicLayer

from policyopt.errors import UserError

_ROOM = 64  # positions that are allocated ahead


Held = list[tuple[Tensor, ...]]
"""Keys and values of a text: as whoever holds them puts them together."""


class Place:
    """Where the layers put the keys and values of the next forward pass."""

    rows: Tensor | None = None
    """Slots of the rows [B]; ``None`` for the first B slots, in order."""
    start: Tensor
    """Position of the first new token of each row, [B]."""
    begin = 0
    """Positions before the new tokens, for whoever makes a mask: 0, or the longest row."""
    level = True
    """All rows begin at the same position."""
    size = 0
    """Rows B of the pass."""


class SlotLayer(DynamicLayer):
    """Keys and values of all slots, [S, H, L, D], written where each row stands."""

    keys: Tensor
    values: Tensor

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.place, self.slots, self.room = place, 0, 0

    def reserve(self, slots: int, room: int) -> None:
        """Make place for a number of slots and of positions; what is held stays."""
        self.slots, self.room = max(self.slots, slots), max(self.room, room)
        if self.is_initialized:
            self.keys, self.values = self._grown(self.keys), self._grown(self.values)

    def _grown(self, held: Tensor) -> Tensor:
        if held.shape[0] >= self.slots and held.shape[2] >= self.room:
            return held
        wide = held.new_zeros(
            max(held.shape[0], self.slots), held.shape[1], max(held.shape[2], self.room), held.shape[3]
        )
        wide[: held.shape[0], :, : held.shape[2]] = held
        return wide

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write [B, H, Q, D]; returns what the rows attend to, [B, H, end, D]."""
        if not self.is_initialized:
            self.dtype, self.device = key_states.dtype, key_states.device
            shape = (self.slots, key_states.shape[1], self.room)
            self.keys = key_states.new_zeros(*shape, key_states.shape[3])
            self.values = value_states.new_zeros(*shape, value_states.shape[3])
            self.is_initialized = True
        return self._write(self.keys, key_states), self._write(self.values, value_states)

    def _write(self, held: Tensor, new: Tensor) -> Tensor:
        place, width = self.place, new.shape[2]
        end = place.begin + width
        if place.rows is None and place.level:
            held[: place.size, :, place.begin : end] = new
            return held[: place.size, :, :end]
        rows = torch.arange(place.size, device=new.device) if place.rows is None else place.rows
        if width == 1:
            held[rows, :, place.start] = new[:, :, 0]
        else:
            where = place.start[:, None] + torch.arange(width, device=new.device)
            held[rows[:, None], :, where] = new.transpose(1, 2)
        if place.begin == 0:
            return new
        return held[: place.size, :, :end] if place.rows is None else held[rows, :, :end]

    def get_seq_length(self) -> int:
        """Positions before the new tokens."""
        return self.place.begin


class Slots:
    """The cache of a model with places for rows of unlike length; with ``notes``, some numbers of ours for every position too.

    Raises :class:`~policyopt.errors.UserError` for a model that keeps another state than keys and values.
    """

    def __init__(self, config: Any, notes: bool = False) -> None:
        plain = DynamicCache(config=config)
        if not plain.layers or not all(isinstance(layer, CacheLayerMixin) for layer in plain.layers):
            raise UserError(f"{type(config).__name__}: the model keeps another state than keys and values")
        self.place = Place()
        self.cache: Any = DynamicCache()
        self.layers = [SlotLayer(self.place) for _ in plain.layers]
        self.cache.layers = list(self.layers)
        if notes:  # kept like the keys of one more layer, which goes with a position wherever its keys and values go
            self.layers.append(SlotLayer(self.place))

    def note(self, numbers: Tensor) -> None:
        """Write numbers [B, Q, R] down for the tokens of the last forward pass."""
        self.layers[-1].update(numbers[:, None], numbers[:, None, :, :0])

    def noted(self, slot: int, length: int) -> Tensor:
        """[length, R] what was written down for the first positions of a slot, on the CPU."""
        return self.layers[-1].keys[slot, 0, :length].to("cpu", copy=True)

    def reserve(self, slots: int, length: int) -> None:
        """Make place for rows of up to ``length`` positions."""
        have = self.layers[0]
        if slots > have.slots or length > have.room:
            room = length if length <= have.room else length + _ROOM
            for layer in self.layers:
                layer.reserve(slots, room)

    def copy(self, source: Tensor, target: Tensor, length: int) -> None:
        """Copy the first ``length`` positions of some slots to others."""
        for layer in self.layers:
            layer.keys[target, :, :length] = layer.keys[source, :, :length]
            layer.values[target, :, :length] = layer.values[source, :, :length]

    def read(self, slot: int, length: int) -> Held:
        """A copy of what a slot holds: keys and values of each layer, [H, length, D]."""
        return [(layer.keys[slot, :, :length].clone(), layer.values[slot, :, :length].clone()) for layer in self.layers]

    def write(self, slot: int, held: Held, length: int) -> None:
        """Put the first ``length`` positions of what :meth:`read` gave into a slot."""
        for layer, (keys, values) in zip(self.layers, held, strict=True):
            layer.keys[slot, :, :length] = keys[:, :length]
            layer.values[slot, :, :length] = values[:, :length]
