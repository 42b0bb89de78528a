"""Rows on their way through one model: what every way of decoding them has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque

import numpy as np
import torch
from torch import Tensor

from policyopt.engine.local.requests import Request, Row
from policyopt.models.likelihood import Stepwise

READ_TOKENS = 16_384
"""Of contexts that are read at once."""


class Stepper(ABC):
    """Decodes rows together, at most ``max_rows`` at once; as one ends, the next that waits takes its place."""

    def __init__(self, split: Stepwise, device: torch.device | str, max_rows: int) -> None:
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

    def closed(self, row: Row) -> Request | None:
        """A row has ended; returns its request where it was the last."""
        row.request.open -= 1
        return None if row.request.open else row.request
