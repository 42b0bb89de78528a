"""Examples with something changed in each, when it is asked for. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import overload

from policyopt.items import Example


class Changed(Sequence[Example]):
    """Examples as ``change`` makes them of others; those that are made on demand stay so."""

    def __init__(self, examples: Sequence[Example], change: Callable[[Example], Example]) -> None:
        self.examples, self.change = examples, change

    def __len__(self) -> int:
        return len(self.examples)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        found = self.examples[index]
        return self.change(found) if isinstance(found, Example) else [self.change(e) for e in found]
