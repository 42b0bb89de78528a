"""Decoding without a cache of our own, for models that keep something else than keys and values, or whose masks cannot be told."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.generation.utils import ALL_CACHE_NAMES

from policyopt.engine.local.requests import Request, Row
from policyopt.engine.local.stepper import READ_TOKENS, Stepper


@dataclass
class _Batch:
    """Rows that began together with contexts of the same length; those that have ended stay until all have."""

    rows: list[Row]
    ids: Tensor
    """[B, L] all that was read."""
    alive: np.ndarray
    kept: dict[str, Any] = field(default_factory=dict)
    """What the model gave back for its next step, under its own name for it."""
    hidden: Tensor | None = None
    routes: Tensor | None = None
    """[B, L, R] the experts that what was read was sent to, where they are recorded."""


class Level(Stepper):
    """Rows of equal length side by side, each batch with whatever the model itself keeps from one step to the next, as
    ``generate`` runs them: no mask, no padding, no place that is filled again.

    A long prompt that rows share is read by each of them.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._batches: list[_Batch] = []

    def admit(self) -> None:
        """See :class:`~policyopt.engine.local.stepper.Stepper`."""
        came: list[Row] = []
        free = self.max_rows - sum(len(b.rows) for b in self._batches)
        while self.waiting and len(came) < free:
            row = self.waiting.popleft()
            if not row.request.done.done():  # else its program was cancelled meanwhile
                came.append(row)
        for length, level in groupby(sorted(came, key=lambda row: len(row.context)), lambda row: len(row.context)):
            rows, most = list(level), max(1, READ_TOKENS // length)
            for some in (rows[i : i + most] for i in range(0, len(rows), most)):
                ids = torch.tensor([row.context for row in some], device=self.device)
                batch = _Batch(some, ids, np.ones(len(some), dtype=bool))
                self._pass(batch, ids)
                self._batches.append(batch)
        if came:
            self._gather()

    def step(self, token: Tensor, over: np.ndarray) -> list[Request]:
        """See :class:`~policyopt.engine.local.stepper.Stepper`."""
        ended = [self.closed(self.active[i]) for i in np.flatnonzero(over)]
        first = 0
        for batch in self._batches:
            live = np.flatnonzero(batch.alive)
            mine = slice(first, first + len(live))
            drawn = batch.ids[:, -1].clone()
            drawn[torch.from_numpy(live).to(self.device)] = token[mine]
            batch.ids = torch.cat([batch.ids, drawn[:, None]], 1)
            self._keep_routes(batch, live[over[mine]])
            batch.alive[live[over[mine]]] = False
            first += len(live)
        self._batches = [b for b in self._batches if b.alive.any()]
        for batch in self._batches:
            self._pass(batch, batch.ids[:, -1:])
        self._gather()
        return [request for request in ended if request is not None]

    def drop_all(self) -> list[Request]:
        """See :class:`~policyopt.engine.local.stepper.Stepper`."""
        for batch in self._batches:
            self._keep_routes(batch, np.flatnonzero(batch.alive))
        self._batches = []
        return super().drop_all()

    def _keep_routes(self, batch: _Batch, rows: np.ndarray) -> None:
        routes = batch.routes
        if routes is not None:
            for i in rows:
                self.keep_routes(batch.rows[i], routes[i].cpu())

    def _gather(self) -> None:
        self.active = [row for b in self._batches for row, alive in zip(b.rows, b.alive, strict=True) if alive]
        states = [b.hidden[torch.from_numpy(b.alive).to(self.device)] for b in self._batches if b.hidden is not None]
        self.hidden = torch.cat(states) if states else None

    def _pass(self, batch: _Batch, new: Tensor) -> None:
        """Read the new tokens [B, Q] of a batch."""
        out, routes = self.read(input_ids=new, use_cache=True, **batch.kept)
        if routes is not None:
            batch.routes = routes if batch.routes is None else torch.cat([batch.routes, routes], 1)
        self.computed += new.numel()
        batch.kept = {name: out[name] for name in ALL_CACHE_NAMES if out.get(name) is not None}
        if not batch.kept:
            raise ValueError("the model gives nothing back for its next step")
        batch.hidden = out.last_hidden_state[:, -1]


class Whole(Level):
    """Rows of equal length side by side, each read anew from its beginning for every token: right for any model, and slow."""

    def _pass(self, batch: _Batch, new: Tensor) -> None:
        if not batch.alive.all():
            live = torch.from_numpy(np.flatnonzero(batch.alive)).to(self.device)
            batch.rows = [row for row, alive in zip(batch.rows, batch.alive, strict=True) if alive]
            batch.ids, batch.alive = batch.ids[live], batch.alive[batch.alive]
        out, batch.routes = self.read(input_ids=batch.ids, use_cache=False)
        self.computed += batch.ids.numel()
        batch.hidden = out.last_hidden_state[:, -1]
