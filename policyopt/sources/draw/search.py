"""The nodes of a search over beginnings of a response, and what it knows of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from policyopt.sources.program import Response


@dataclass(eq=False)
class Node:
    """The beginning of a response, and what the search knows of it."""

    text: Response
    parent: Node | None = None
    value: float = 0.0
    """Mean of all that was found below it, once it was visited."""
    visits: int = 0
    total: float = 0.0
    children: list[Node] = field(default_factory=list)
    """One for each line that was drawn; empty before it is expanded."""
    visible: bool = True
    """The search may go on to it."""
    terminal: bool = False
    """It is a whole response."""

    def note(self, total: float, visits: int) -> None:
        """Take in ``visits`` numbers that add up to ``total``, here and in all nodes above."""
        node: Node | None = self
        while node is not None:
            node.total += total
            node.visits += visits
            node.value = node.total / node.visits
            node = node.parent

    def expected(self, found: Sequence[float]) -> float:
        """The mean of what was found from here, without NaN; where that is nothing, what the nodes above are worth so far."""
        if known := [x for x in found if not math.isnan(x)]:
            return sum(known) / len(known)
        node = self.parent
        while node is not None and not node.visits:
            node = node.parent
        return 0.0 if node is None else node.value


def beginning(response: Response, count: int) -> Response:
    """The first so many tokens of a response: the response itself, or one that is still open."""
    if count == len(response.tokens):
        return response
    return replace(
        response,
        tokens=response.tokens[:count],
        logp=response.logp[:count],
        entropy=response.entropy[:count],
        support=response.support[:count],
        versions=response.versions[:count],
        stop_reason="length",
        verdict=None,
    )
