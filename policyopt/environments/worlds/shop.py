"""The world ``shop``: search a small catalogue by words, look at an item, buy one."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from itertools import product
from typing import Any, ClassVar

from policyopt.environments.world import Action, Observation
from policyopt.environments.worlds.told import NUMBERS, Told

Item = tuple[str, str, str]
COLOURS = ("red", "blue", "tan", "pink")
CLOTHS = ("wool", "silk", "felt", "jute")
KINDS = ("hat", "coat", "sock", "bag")
ITEMS = 9
SHOWN = 3
"""How many items a search finds at most."""
_ACTION = re.compile(r"(search|look|buy) ([a-z0-9 ]{1,80})")


class Shop(Told):
    """Up to 6 turns: ``search WORDS`` tells the numbers of the items that match most of the words, three at most, ``look N`` tells what item N is, and
    ``buy N`` ends the episode.

    A purchase is worth the share of the wanted attributes (colour, cloth, kind) that the item has: 1 for the exact one, which is
    ``correct``. Whoever buys nothing earns nothing. Whatever is none of the three costs the turn. ``numbers``: ``searches``, ``looks``,
    ``matched`` (the share). The state is what the last search found and which items were looked at.

    The exact item is always there, and behind it a cheaper thought: another item of its kind with a lower number, which a search for
    the kind alone finds first. A sound method learns to search with all the words, from a start at which two in three episodes search
    for the kind and buy what comes first.

    In the manner of WebShop (arXiv:2207.01206), in miniature; its reward has prices and options besides.
    """

    summary: ClassVar[str] = "a small shop: search, look, buy what was asked for (an environment)"
    rules: ClassVar[str] = (
        "Buy the item that fits best. Each time answer with one line: search WORDS (you read the numbers of items), "
        "look NUMBER (you read what it is), or buy NUMBER (which ends it)."
    )
    turns = 6
    max_tokens: int = 192
    warm_start: Mapping[str, Any] = {"steps": 700, "examples": 2048, "terse": 0.0, "lessons": 3.0}

    def begin(self, chance: random.Random) -> None:
        """See :class:`~policyopt.environments.worlds.told.Told`."""
        self.number = chance.randrange(NUMBERS)
        self.wanted: Item = (chance.choice(COLOURS), chance.choice(CLOTHS), chance.choice(KINDS))
        alike = [i for i in product(COLOURS, CLOTHS, KINDS) if i != self.wanted and i[2] == self.wanted[2]]
        others = [i for i in product(COLOURS, CLOTHS, KINDS) if i[2] != self.wanted[2]]
        items = [*chance.sample(alike, 2), *chance.sample(others, ITEMS - 3)]
        chance.shuffle(items)
        first = next(i for i, item in enumerate(items) if item[2] == self.wanted[2])
        items.insert(chance.randint(first + 1, len(items)), self.wanted)
        self.items = tuple(items)
        self.hits: tuple[int, ...] = ()
        self.seen: frozenset[int] = frozenset()

    def question(self) -> str:
        """See :class:`~policyopt.environments.worlds.told.Told`."""
        return f"shop {self.number}: {' '.join(self.wanted)}"

    def answer(self) -> str:
        """The number of the item."""
        return str(self.items.index(self.wanted) + 1)

    def state(self) -> str:
        """See :class:`~policyopt.environments.worlds.told.Told`."""
        return f"{' '.join(map(str, self.hits))}|{' '.join(map(str, sorted(self.seen)))}"

    def found(self, words: frozenset[str]) -> tuple[int, ...]:
        """The items that match most words, those with lower numbers first among equals."""
        ranked = sorted((-len(words & {*item}), n) for n, item in enumerate(self.items, 1))
        return tuple(n for score, n in ranked if score < 0)[:SHOWN]

    def step(self, action: Action) -> Observation:
        """Search, look or buy."""
        read = _ACTION.fullmatch(action.strip().lower())
        verb, rest = (read[1], read[2].strip()) if read else ("", "")
        if verb == "search":
            self.hits = self.found(frozenset(rest.split()))
            return self.told(" ".join(map(str, self.hits)) or "nothing", searches=1.0)
        number = int(rest) if rest.isdecimal() and len(rest) <= 3 else 0
        if not verb or not 1 <= number <= ITEMS:
            return self.told(f"no item {rest}" if verb else "say search WORDS, look N or buy N")
        item = self.items[number - 1]
        if verb == "look":
            self.seen |= {number}
            return self.told(" ".join(item), looks=1.0)
        share = sum(a == b for a, b in zip(item, self.wanted, strict=True)) / len(item)
        return Observation(
            reward=share, done=True, correct=item == self.wanted, state=self.state(), numbers={"matched": share},
            reason=f"{' '.join(item)} for {' '.join(self.wanted)}",
        )  # fmt: skip

    def told(self, text: str, **numbers: float) -> Observation:
        """What one reads before one has bought."""
        return Observation(text, reward=0.0, correct=False, state=self.state(), numbers=numbers)

    def shown(self, chance: random.Random) -> str:
        """Search with all the words and buy what comes first, now and then after a look; in a hurry search for the kind alone."""
        hurried = self.hurried(chance)
        if not self.hits:
            return f"search {self.wanted[2] if hurried else ' '.join(self.wanted)}"
        if not hurried and not self.seen and chance.random() < 0.2:
            return f"look {self.hits[0]}"
        return f"buy {self.hits[0]}"
