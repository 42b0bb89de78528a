"""A key-value cache that grows in place."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

_ROOM = 64  # positions that are allocated ahead


class GrowingLayer(DynamicLayer):
    """Keys and values in buffers with room ahead: a decoded token is written where it belongs.

    The library's layer copies everything that it holds for every token, which for short batches costs more than the attention itself.
    """

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append keys and values [B, H, new, D]; returns all of them, [B, H, old + new, D]."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        old = self.get_seq_length()
        self.keys = _appended(self.keys, key_states, old)
        self.values = _appended(self.values, value_states, old)
        return self.keys, self.values


def _appended(held: Tensor | None, new: Tensor, old: int) -> Tensor:
    """``held`` with ``new`` behind it: in the buffer that it is a view of where there is room, else in a larger one."""
    end = old + new.shape[2]
    buffer = held._base if held is not None and old else None
    if buffer is not None and buffer.shape[2] < end:
        buffer = None
    if buffer is None:
        buffer = new.new_empty(*new.shape[:2], end + _ROOM, new.shape[3])
        if held is not None and old:
            buffer[:, :, :old] = held
    buffer[:, :, old:end] = new
    return buffer[:, :, :end]


def growing_cache(config: Any) -> DynamicCache:
    """The cache of a model, with layers that grow in place wherever the model has plain ones."""
    cache = DynamicCache(config=config)
    cache.layers = [GrowingLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache
