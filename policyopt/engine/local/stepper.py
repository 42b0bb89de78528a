"""Rows on their way through one model: what every way of decoding them has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from typing import Any

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
