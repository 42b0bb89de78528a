"""Sequences whose items are made when they are asked for. Nothing here imports torch."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TypeVar, overload

X = TypeVar("X")


class Made(Sequence[X]):
    """Items that follow from their numbers; the last few thousand that were asked for are kept."""

    def __init__(self, length: int, kept: int = 4096) -> None:
        self.length = length
        self._at = lru_cache(maxsize=kept)(self._make)

    @abstractmethod
    def _make(self, index: int) -> X:
        """The item of a number from 0 on."""

    def __len__(self) -> int:
        return self.length

    @overload
    def __getitem__(self, index: int) -> X: ...
    @overload
    def __getitem__(self, index: slice) -> list[X]: ...
    def __getitem__(self, index: int | slice) -> X | list[X]:
        if isinstance(index, slice):
            return [self._at(i) for i in range(*index.indices(self.length))]
        if not -self.length <= index < self.length:
            raise IndexError(f"item {index} of {self.length}")
        return self._at(index % self.length)

    def __iter__(self) -> Iterator[X]:
        return (self._at(i) for i in range(self.length))
