"""Rows in flight on one model with a cache of places: who has one, what has been read, and what is read next."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from policyopt.engine.local.prefixes import KEEP_BYTES, Prefixes
from policyopt.engine.local.requests import Request, Row
from policyopt.engine.local.slots import Slots
from policyopt.engine.local.stepper import Ahead, padded, remaining
from policyopt.models.likelihood import Stepwise
from policyopt.models.routing import Routers


class Flight(Ahead[int]):
    """Rows of unlike length in the places of one cache. Contexts are read some rows ahead, each distinct one once and as far
    as it is not held already.

    Raises :class:`~policyopt.errors.UserError` for a model that keeps another state than keys and values."""

    windows = frozenset({"sliding_window"})

    def __init__(
        self, split: Stepwise, device: torch.device | str, max_rows: int, routers: Routers | None = None
    ) -> None:
        super().__init__(split, device, max_rows, routers)
        self._config: Any = getattr(split.hidden, "config", None)
        takes = inspect.signature(getattr(split.hidden, "forward", split.hidden)).parameters
        self._positions = "position_ids" in takes
        self._slots = Slots(self._config, notes=routers is not None)
        self._prefixes = Prefixes(KEEP_BYTES if self._positions else 0)
        self._held_version = 0
        self._length = np.zeros(0, dtype=np.int64)

    def forget(self) -> None:
        """Let go of what is held for later requests."""
        self._prefixes.clear()

    def step(self, token: Tensor, over: np.ndarray) -> list[Request]:
        """See :class:`~policyopt.engine.local.stepper.Stepper`."""
        ended = [self._close(int(i)) for i in np.flatnonzero(over)]
        stay = self._compact(over)
        if len(stay):
            places = torch.from_numpy(stay).to(self.device)
            self.hidden = self._pass(None, token[places][:, None], self._length)[:, -1]
            self._length += 1
        else:
            self.hidden = None
        return [request for request in ended if request is not None]

    def drop_all(self) -> list[Request]:
        """See :class:`~policyopt.engine.local.stepper.Stepper`."""
        for i in range(len(self.active)):
            self._keep_routes(i)
        dropped = super().drop_all()
        self._length = self._length[:0]
        return dropped

    def _close(self, i: int) -> Request | None:
        """An active row has ended; returns its request where it was the last."""
        row, length = self.active[i], int(self._length[i])
        self._keep_routes(i)
        if row.request.keep:  # the last token has been drawn but not read
            whole = (*row.request.prompt, *row.response.tokens)
            self._prefixes.add(whole[:length], self._slots.read(i, length))
        return self.closed(row)

    def _keep_routes(self, i: int) -> None:
        if self.routers is not None:
            self.keep_routes(self.active[i], self._slots.noted(i, int(self._length[i])))

    def _compact(self, over: np.ndarray) -> np.ndarray:
        """Move the last rows into the places of those that have ended. Returns the old place of each row that stays."""
        order, movers, holes = remaining(over)
        if len(order) < len(over):
            if len(holes):
                source, target = (torch.from_numpy(x).to(self.device) for x in (movers, holes))
                self._slots.copy(source, target, int(self._length[movers].max()))
            self.active = [self.active[i] for i in order]
            self._length = self._length[order]
        return order

    def admit(self) -> None:
        """See :class:`~policyopt.engine.local.stepper.Stepper`; contexts are read some rows ahead, many at once."""
        if self._held_version != self.version:
            self._prefixes.clear()
            self._held_version = self.version
        super().admit()

    def _place(self, came: Sequence[tuple[Row, int, Tensor]]) -> None:
        """Move rows whose contexts have been read behind the active ones."""
        first, length = len(self.active), np.array([len(row.context) for row, _, _ in came])
        source = torch.tensor([slot for _, slot, _ in came], device=self.device)
        self._slots.copy(source, torch.arange(first, first + len(came), device=self.device), int(length.max()))
        self.active += [row for row, _, _ in came]
        self._length = np.concatenate([self._length, length])
        fresh = torch.stack([hidden for _, _, hidden in came])
        self.hidden = fresh if self.hidden is None else torch.cat([self.hidden, fresh])

    def _read_ahead(self) -> bool:
        """Read the contexts of the next rows, as far as they are not held already, into slots behind the active ones.
        Returns whether there were any."""
        rows, distinct = self._next()
        if not rows:
            return False
        base = min(self.max_rows, len(self.active) + len(rows))
        room = max(len(row.context) + row.end - len(row.response.tokens) for row in rows)
        self._slots.reserve(base + len(distinct), max(room, int(self._length.max(initial=0)) + 1))
        hidden = self._read(list(distinct), base)
        for row in rows:
            place = distinct[row.context]
            self._ready.append((row, base + place, hidden[place]))
        return True

    def _read(self, contexts: list[tuple[int, ...]], base: int) -> Tensor:
        """Pass contexts into the slots from ``base`` on. Returns the hidden state of the last token of each, [D, H]."""
        start = np.zeros(len(contexts), dtype=np.int64)
        for i, context in enumerate(contexts):
            known, held = self._prefixes.longest(context[:-1])
            if held is not None:
                self._slots.write(base + i, held, known)
                start[i] = known
        ids, fresh = padded(contexts, start.tolist())
        rows = torch.arange(base, base + len(contexts), device=self.device)
        self.computed += sum(fresh) - ids.numel()  # padding is not counted
        out = self._pass(rows, ids.to(self.device), start)
        if self._positions:
            for i, context in enumerate(contexts):
                self._prefixes.add(context, self._slots.read(base + i, len(context)))
        last = torch.tensor(fresh, device=self.device) - 1
        return out[torch.arange(len(contexts), device=self.device), last]

    def _pass(self, rows: Tensor | None, ids: Tensor, start: np.ndarray) -> Tensor:
        """Run tokens [B, Q] that stand at positions from ``start`` on, in given slots or the first B. Returns hidden
        states [B, Q, H]."""
        place, width = self._slots.place, ids.shape[1]
        place.rows, place.size = rows, len(ids)
        place.start = torch.from_numpy(start).to(self.device)
        place.begin = int(start.max())
        place.level = bool((start == place.begin).all())
        if place.begin + width > self._slots.layers[0].room:
            self._slots.reserve(0, place.begin + width)
        keywords: dict[str, Any] = {}
        where = place.start[:, None] + torch.arange(width, device=self.device)
        if self._positions:
            keywords["position_ids"] = where[:1] if place.level else where
        if not place.level or (width > 1 and place.begin):
            keywords["attention_mask"] = self._mask(where, place.begin + width)
        out, routes = self.read(input_ids=ids, past_key_values=self._slots.cache, use_cache=True, **keywords)
        if routes is not None:
            self._slots.note(routes)
        self.computed += ids.numel()
        hidden: Tensor = out.last_hidden_state
        return hidden

    def _mask(self, where: Tensor, end: int) -> Any:
        """What tokens at positions [B, Q] see of ``end`` positions: those before them, and in windows the near ones."""
        key = torch.arange(end, device=self.device)
        if not self._positions:  # such models count the ones of a plain mask to know where they are
            return (key <= where).long()
        near = key <= where[:, None, :, None]
        window = getattr(self._config, "sliding_window", None)
        kinds = set(getattr(self._config, "layer_types", None) or ())
        if not window or (kinds and "sliding_attention" not in kinds):
            return self._additive(near)
        windowed = near & (key > where[:, None, :, None] - window)
        if kinds == {"sliding_attention"} or not kinds:
            return self._additive(windowed)
        return {"full_attention": self._additive(near), "sliding_attention": self._additive(windowed)}

    def _additive(self, seen: Tensor) -> Tensor:
        if self._config._attn_implementation != "eager":
            return seen
        dtype = self.split.hidden.dtype  # type: ignore[attr-defined]
        return torch.where(seen, 0.0, torch.finfo(dtype).min).to(dtype)
