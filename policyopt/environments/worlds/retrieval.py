"""The world ``retrieval``: questions over a small corpus of made-up facts, which take two searches."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Mapping
from typing import Any, ClassVar

from policyopt.environments.bm25 import Bm25, words_of
from policyopt.environments.objects import ToolWorld
from policyopt.environments.tools import Tool, tool_of
from policyopt.environments.world import Action, Observation
from policyopt.environments.worlds.told import NUMBERS, Told
from policyopt.judging.answers import answer_line, find_answer

PEOPLE = 4
QUERY = 200
"""Characters of a query that are read."""
_SOUNDS = "bdfgklmnprstvz"


def name(chance: random.Random) -> str:
    """A name that nobody has."""
    return chance.choice(_SOUNDS) + chance.choice("aeiou") + chance.choice(_SOUNDS)


def call(query: str) -> str:
    """A call of the tool, as the policy writes it."""
    return json.dumps({"name": "search", "arguments": {"q": query}}, separators=(",", ":"))


def f1(given: str, wanted: str) -> float:
    """The harmonic mean of precision and recall of an answer's words against those of the reference, as for SQuAD (arXiv:1606.05250)."""
    a, b = Counter(words_of(given)), Counter(words_of(wanted))
    common = sum((a & b).values())
    return 2 * common / (sum(a.values()) + sum(b.values())) if common else 0.0


class Retrieval(Told):
    """Up to 5 turns: call ``search`` with words, and read the document that fits best (BM25); a text without a call is the answer.

    The question is ``town of firm of kim?``: which firm that is stands in one document, its town in another; people have towns too. An answer is worth the F1 of
    its words, which is 1 for the exact one (``correct``) and 0 for another town; none at all is worth 0. ``numbers``: ``tool_calls``,
    ``tool_errors``, ``f1``, ``exact``, and ``hop1`` and ``hop2`` (the two documents were found, at most once each). The state is which documents were found.

    A sound method learns to search twice, from a start at which two in three episodes search for the town of the one who is named and
    answer with that.
    """

    summary: ClassVar[str] = "questions of two hops over made-up facts, with a search to call (an environment)"
    rules: ClassVar[str] = (
        'Search with a line of this form and nothing else: {"name":"search","arguments":{"q":"firm of kim"}}. '
        "You read the document that fits best. When you know the answer, write it behind ####."
    )
    turns = 5
    max_tokens: int = 320
    warm_start: Mapping[str, Any] = {"steps": 800, "examples": 2048, "terse": 0.0, "lessons": 3.0}

    def __init__(self, explain: bool = False) -> None:
        super().__init__(explain)
        self.tools: tuple[Tool, ...] = (tool_of(self.search),)

    def search(self, q: str) -> str:
        """Find the document that fits some words best."""
        found = self.index.top(q[:QUERY], 1)
        return found[0] if found else "nothing"

    def begin(self, chance: random.Random) -> None:
        """See :class:`~policyopt.environments.worlds.told.Told`."""
        self.number = chance.randrange(NUMBERS)
        names: list[str] = []
        while len(names) < 4 * PEOPLE:
            names += [fresh for fresh in [name(chance)] if fresh not in names]
        people, firms, towns = names[:PEOPLE], names[PEOPLE : 2 * PEOPLE], names[2 * PEOPLE :]
        self.firm = dict(zip(people, firms, strict=True))
        self.town = dict(zip([*people, *firms], towns, strict=True))
        self.who = chance.choice(people)
        facts = [f"firm of {x} is {y}" for x, y in self.firm.items()]
        facts += [f"town of {x} is {y}" for x, y in self.town.items()]
        chance.shuffle(facts)
        self.index = Bm25(facts)
        firm = self.firm[self.who]
        self.needed = (f"firm of {self.who} is {firm}", f"town of {firm} is {self.answer()}")
        self.read: list[str] = []

    def question(self) -> str:
        """See :class:`~policyopt.environments.worlds.told.Told`."""
        return f"{self.number}: town of firm of {self.who}?"

    def answer(self) -> str:
        """The town."""
        return self.town[self.firm[self.who]]

    def state(self) -> str:
        """See :class:`~policyopt.environments.worlds.told.Told`."""
        return "; ".join(sorted(set(self.read)))

    async def step(self, action: Action) -> Observation:  # type: ignore[override]
        """A call is answered; a text without one is the answer."""
        said = await ToolWorld(self.tools).step(action)
        if said.done:
            given = find_answer(action) or ""
            score, exact = f1(given, self.answer()), words_of(given) == words_of(self.answer())
            return Observation(
                reward=score, done=True, correct=exact, state=self.state(), numbers={"f1": score, "exact": float(exact)},
                reason=f"{given[:40]!r} against {self.answer()!r}",
            )  # fmt: skip
        new = {m["content"] for m in said.messages} & {*self.index.documents} - {*self.read}
        self.read += sorted(new)
        hops = {f"hop{i}": float(text in new) for i, text in enumerate(self.needed, 1)}
        return Observation(messages=said.messages, reward=0.0, state=self.state(), numbers={**said.numbers, **hops})

    def shown(self, chance: random.Random) -> str:
        """Search for the firm, then for the town of the firm; in a hurry for the town of the one who is named."""
        hurried = self.hurried(chance)
        last = self.read[-1].split()[-1] if self.read else ""
        if not last:
            return call(f"{'town' if hurried else 'firm'} of {self.who}")
        if hurried or len(self.read) > 1:
            return answer_line(last)
        return call(f"town of {last}")
