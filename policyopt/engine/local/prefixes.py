"""Keys and values that may be needed again: prompts, and responses that a program will branch from."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from policyopt.engine.local.slots import Held

KEEP_BYTES = 1 << 30
"""Keys and values that are held for later requests."""


@dataclass
class _Node:
    """A token in the tree of all sequences that are held."""

    next: dict[int, _Node] = field(default_factory=dict)
    holders: set[int] = field(default_factory=set)
    """The sequences that pass through here."""


class Prefixes:
    """Sequences with their keys and values, found by their longest common beginning; the least used go first."""

    def __init__(self, limit: int) -> None:
        self.limit, self.size, self._count = limit, 0, 0
        self._root = _Node()
        self._held: OrderedDict[int, tuple[tuple[int, ...], Held, int]] = OrderedDict()

    def clear(self) -> None:
        """Forget everything: the weights have changed."""
        self.__init__(self.limit)  # type: ignore[misc]

    def longest(self, tokens: tuple[int, ...]) -> tuple[int, Held | None]:
        """How many of the first tokens are held, and the keys and values of a sequence that begins with them."""
        node, depth = self._root, 0
        for token in tokens:
            if token not in node.next:
                break
            node, depth = node.next[token], depth + 1
        if depth == 0:
            return 0, None
        number = next(iter(node.holders))
        self._held.move_to_end(number)
        return depth, self._held[number][1]

    def add(self, tokens: tuple[int, ...], held: Held) -> None:
        """Hold a sequence."""
        size = sum(x.numel() * x.element_size() for pair in held for x in pair)
        if size > self.limit:
            return
        while self.size + size > self.limit:
            self._drop()
        self._count += 1
        node = self._root
        for token in tokens:
            node = node.next.setdefault(token, _Node())
            node.holders.add(self._count)
        self._held[self._count] = (tokens, held, size)
        self.size += size

    def _drop(self) -> None:
        number, (tokens, _, size) = self._held.popitem(last=False)
        self.size -= size
        node = self._root
        for token in tokens:
            below = node.next[token]
            below.holders.discard(number)
            if not below.holders:
                del node.next[token]
                return
            node = below
