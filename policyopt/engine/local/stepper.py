"""Rows on their way through one model: what every way of decoding them has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from policyopt.engine.local.requests import Request, Row
from policyopt.models.likelihood import Stepwise
from policyopt.models.routing import Routers
from policyopt.sources.routes import Routes

READ_TOKENS = 16_384
"""Of contexts that are read at once."""


class Stepper(ABC):
    """Decodes rows together, at most ``max_rows`` at once; as one ends, the next that waits takes its place."""

    windows: frozenset[str] | None = None
    """Windows, by their field of the configuration, that it knows of; ``None`` where it leaves them to the model."""
    ahead = 1
    """Steps that may be asked for at once: the host looks at what was drawn when all of them are under way. Rows that have ended
    by then pass some tokens for nothing."""

    @property
    def note(self) -> str:
        """What people are told of it after it has been tried; mostly nothing."""
        return ""

    def __init__(
        self, split: Stepwise, device: torch.device | str, max_rows: int, routers: Routers | None = None
    ) -> None:
        self.routers = routers
        """Of a mixture of experts, where the experts of every token are recorded."""
        self.split, self.device, self.max_rows, self.version = split, torch.device(device), max_rows, 0
        self.computed = 0
        """Tokens that went through the model so far, prompts included (what is shared counts once)."""
        self.waiting: deque[Row] = deque()
        self.active: list[Row] = []
        self.hidden: Tensor | None = None
        """[B, H] the hidden states that the next tokens of the active rows are drawn from."""

    @property
    def busy(self) -> bool:
        """Whether any row is under way or waits."""
        return bool(self.active or self.waiting)

    @abstractmethod
    def admit(self) -> None:
        """Give the free places to rows that wait: their contexts are read."""

    @abstractmethod
    def step(self, token: Tensor, over: np.ndarray) -> list[Request]:
        """Pass the tokens [B] that were just drawn, for the rows that do not end by them. Returns the requests that are
        complete."""

    def forget(self) -> None:  # noqa: B027 -- most ways of decoding hold nothing
        """Let go of what is held for later requests."""

    def rows(self) -> list[Row]:
        """All rows that have not ended."""
        return [*self.active, *self.waiting]

    def drop_all(self) -> list[Request]:
        """Let go of every row. Returns their requests, each once."""
        rows = self.rows()
        self.active, self.hidden = [], None
        self.waiting.clear()
        return list({id(row.request): row.request for row in rows}.values())

    def read(self, **inputs: Any) -> tuple[Any, Tensor | None]:
        """Call the backbone on ``input_ids`` [B, Q]. Returns what it gives, and the experts that the tokens were sent to,
        [B, Q, R], where they are recorded."""
        if self.routers is None:
            return self.split.hidden(**inputs), None
        with self.routers.recording() as seen:
            out = self.split.hidden(**inputs)
        return out, seen.routes(len(inputs["input_ids"]))

    def keep_routes(self, row: Row, routes: Tensor) -> None:
        """Write down the experts [n, R] that the first n tokens of a row's text were sent to. What was resumed keeps those of
        the weights that drew it."""
        response = row.response
        ids = (*row.request.prompt, *response.tokens)[: len(routes)]
        earlier = response.routes
        response.routes = Routes(ids, routes) if earlier is None else earlier.followed(ids, routes)

    def closed(self, row: Row) -> Request | None:
        """A row has ended; returns its request where it was the last."""
        row.request.open -= 1
        return None if row.request.open else row.request


T = TypeVar("T")


class Ahead(Stepper, Generic[T]):
    """Reads contexts some rows ahead, many at once, and each distinct one once."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._ready: deque[tuple[Row, T, Tensor]] = deque()
        """Rows whose context has been read: with where it lies, and the hidden state of its last token."""

    @property
    def busy(self) -> bool:
        """Whether any row is under way or waits."""
        return bool(self._ready) or super().busy

    def rows(self) -> list[Row]:
        """All rows that have not ended."""
        return [*self.active, *(row for row, _, _ in self._ready), *self.waiting]

    def drop_all(self) -> list[Request]:
        """See :class:`Stepper`."""
        dropped = super().drop_all()
        self._ready.clear()
        return dropped

    def admit(self) -> None:
        """See :class:`Stepper`."""
        while (free := self.max_rows - len(self.active)) and (self._ready or self._read_ahead()):
            # what was read has to be in its place before the next contexts are read over it
            self._place([self._ready.popleft() for _ in range(min(free, len(self._ready)))])

    @abstractmethod
    def _place(self, came: Sequence[tuple[Row, T, Tensor]]) -> None:
        """Put rows whose contexts have been read behind the active ones."""

    @abstractmethod
    def _read_ahead(self) -> bool:
        """Read the contexts of the next rows. Returns whether there were any."""

    def _next(self) -> tuple[list[Row], dict[tuple[int, ...], int]]:
        """Rows whose contexts are read together, and their distinct contexts, numbered."""
        most = max(self.max_rows - len(self.active), self.max_rows // 2)
        rows: list[Row] = []
        distinct: dict[tuple[int, ...], int] = {}
        longest = 0
        while self.waiting and len(rows) < most:
            row = self.waiting[0]
            longest = max(longest, len(row.context))
            if rows and longest * (len(distinct) + 1) > READ_TOKENS and row.context not in distinct:
                break
            self.waiting.popleft()
            if not row.request.done.done():  # else its program was cancelled meanwhile
                rows.append(row)
                distinct.setdefault(row.context, len(distinct))
        return rows, distinct


def remaining(over: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The rows that stay when others end, moved as little as can be: the last ones take the places of those that have ended.
    Returns the old place of each, and of those that move the old and the new one."""
    stay = np.flatnonzero(~over)
    holes = np.flatnonzero(over[: len(stay)])
    movers = stay[stay >= len(stay)]
    order = np.arange(len(stay))
    order[holes] = movers
    return order, movers, holes


def padded(contexts: Sequence[Sequence[int]], start: Sequence[int]) -> tuple[Tensor, list[int]]:
    """What is left to read of contexts from places on, [D, Q] with zeros on the right, and how many tokens of each."""
    fresh = [len(context) - s for context, s in zip(contexts, start, strict=True)]
    ids = torch.zeros(len(contexts), max(fresh), dtype=torch.long)
    for row, context, s, n in zip(ids, contexts, start, fresh, strict=True):
        row[:n] = torch.tensor(context[s:])
    return ids, fresh
