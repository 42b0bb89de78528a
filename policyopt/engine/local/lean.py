"""Decoding by the weights of a model alone, with the keys and values of a context that rows share held once for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from policyopt.engine.local.fixed import Inputs, Seats, Step, Steps, rounded
from policyopt.engine.local.prefixes import KEEP_BYTES, Prefixes
from policyopt.engine.local.requests import Request, Row
from policyopt.engine.local.stepper import Ahead, padded, remaining
from policyopt.errors import UserError
from policyopt.models.lean import Decoder, alone, attended, causal, joined
from policyopt.models.likelihood import Stepwise
from policyopt.models.routing import Routers

Place = int | Tensor
"""One place, or some [n]."""

WORTH = 2048
"""Copies of keys that sharing must save: a second call of attention costs what it takes to read so many."""

AHEAD = 16
"""Steps that a device with a queue of its own is asked for at once."""

ROOM = 32
"""Lengths of keys that steps of fixed shapes are made for are multiples of it."""


class Keys:
    """Keys and values in places of equal length, [layers, S, K, L, D] each; it grows as they are needed."""

    def __init__(self, model: Decoder) -> None:
        shape = (len(model.layers), 0, model.kv_heads, 0, model.dim)
        self.k = self.v = torch.zeros(shape, dtype=model.dtype, device=model.device)
        self.layers = list(zip(self.k, self.v, strict=True))

    def reserve(self, places: int, length: int) -> None:
        """Make room; what is held stays. Rows become longer by a half at least, so that each is moved seldom."""
        layers, have, heads, room, dim = self.k.shape
        if places <= have and length <= room:
            return
        wide = room if length <= room else max(length, room + room // 2)
        # zeros: what a mask hides is multiplied by nothing, which no NaN survives
        old = self.k, self.v
        self.k, self.v = (x.new_zeros(layers, max(places, have), heads, wide, dim) for x in old)
        for new, held in zip((self.k, self.v), old, strict=True):
            new[:, :have, :, :room] = held
        self.layers = list(zip(self.k, self.v, strict=True))

    def take(self, places: Place, other: Keys, others: Place, length: int) -> None:
        """Put the first positions of places of another, or of this one, into places."""
        self.k[:, places, :, :length] = other.k[:, others, :, :length]
        self.v[:, places, :, :length] = other.v[:, others, :, :length]

    def read(self, place: int, length: int) -> tuple[Tensor, Tensor]:
        """A copy of the first positions of a place, [layers, K, length, D] each."""
        return self.k[:, place, :, :length].clone(), self.v[:, place, :, :length].clone()


@dataclass(eq=False)
class Block:
    """A context that has been read."""

    place: int
    length: int
    shared: bool
    """Its rows attend to it where it lies; else each has a copy."""
    rows: int = 0
    """Rows that need it still: those that have not ended, or have no copy yet."""


class Lean(Ahead[Block]):
    """Rows of unlike length, passed by a :class:`~policyopt.models.lean.Decoder`.

    Contexts that enough rows share are attended to where they were read, by all rows of one in one product; what the rows
    drew themselves lies in places of their own, and the two attentions are joined by their normalisers. Adapters are
    merged whenever the weights may have changed: at another ``version``, at :meth:`forget` and :meth:`drop_all`.

    On the CPU a step has the shapes of what is there. Elsewhere shapes are rounded up to a few (:mod:`~policyopt.engine.local.fixed`),
    what is behind a row's end or in the place of no row is masked, and the host asks for some steps before it looks at the first.

    The model takes tokens wherever they stand, and which keys each sees is said by ``attend`` alone: a step of several tokens
    for each row, as the proof of a draft needs, changes nothing else.

    Raises :class:`~policyopt.errors.UserError` for a model that is built otherwise, and where experts are recorded.
    """

    windows = frozenset()

    def __init__(
        self, split: Stepwise, device: torch.device | str, max_rows: int, routers: Routers | None = None
    ) -> None:
        super().__init__(split, device, max_rows, routers)
        if routers is not None:
            raise UserError("experts are recorded where the modules of the model are called")
        self._model = Decoder(split.hidden)
        self._own, self._contexts = Keys(self._model), Keys(self._model)
        self._prefixes = Prefixes(KEEP_BYTES)
        self._merged: int | None = self.version
        """The version whose adapters are merged; ``None`` where they may have changed since."""
        self._blocks: list[Block] = []
        """By place."""
        self._mine: list[Block | None] = []
        """The block that each active row attends to; ``None`` where it has a copy."""
        self._seats: Seats | None = None
        self._steps: Steps | None = None
        """Where steps have fixed shapes: on devices that work through a queue, which is empty while the host asks and waits."""
        self._step: Step | None = None
        """The one that the active rows take; it holds until a row comes or goes, or there are other weights."""
        if self.device.type != "cpu":
            self.queue()
        self._length = np.zeros(0, dtype=np.int64)
        """Of what lies in the rows' own places."""

    def queue(self, ahead: int = AHEAD, *, fixed: bool = True, graphs: bool = True) -> None:
        """Ask for some steps at once, while no row is under way: of ``fixed`` shapes, as ``graphs`` where the device has such, or
        of the shapes of what is there."""
        self.ahead = ahead
        self._steps = Steps(self._run, self.device, graphs) if fixed else None

    @property
    def note(self) -> str:
        """See :class:`~policyopt.engine.local.stepper.Stepper`."""
        return "" if self._steps is None else self._steps.note

    def forget(self) -> None:
        """Let go of what is held for later requests."""
        self._prefixes.clear()
        self._merged = None

    def drop_all(self) -> list[Request]:
        """See :class:`~policyopt.engine.local.stepper.Stepper`."""
        self._blocks, self._mine, self._seats, self._step = [], [], None, None
        self._length = self._length[:0]
        self._merged = None
        return super().drop_all()

    def admit(self) -> None:
        """See :class:`~policyopt.engine.local.stepper.Stepper`."""
        if self._merged != self.version:
            self._prefixes.clear()
            self._model.refresh()
            self._merged, self._step = self.version, None
        super().admit()

    # Reading ---------------------------------------------------------------------------------------------------------

    def _read_ahead(self) -> bool:
        rows, distinct = self._next()
        if not rows:
            return False
        shared = (len(rows) - len(distinct)) * max(map(len, distinct)) >= WORTH
        blocks = [Block(len(self._blocks) + i, len(context), shared) for i, context in enumerate(distinct)]
        self._blocks += blocks
        hidden = self._read(list(distinct), blocks)
        for row in rows:
            number = distinct[row.context]
            blocks[number].rows += 1
            self._ready.append((row, blocks[number], hidden[number]))
        return True

    def _read(self, contexts: list[tuple[int, ...]], blocks: list[Block]) -> Tensor:
        """Pass contexts into their blocks, as far as they are not held. Returns the hidden state of the last token of each,
        [C, H]."""
        found = [self._prefixes.longest(context[:-1]) for context in contexts]
        start = [known for known, _ in found]
        ids, fresh = padded(contexts, start)
        first, width = blocks[0].place, ids.shape[1]
        end = max(start) + width
        self._contexts.reserve(first + len(blocks), end)
        self._model.reserve(end)
        for block, (known, held) in zip(blocks, found, strict=True):
            if held is not None:
                for keys, own in zip((self._contexts.k, self._contexts.v), held[0], strict=True):
                    keys[:, block.place, :, :known] = own[:, :, :known]
        begin = torch.tensor(start, device=self.device)[:, None]
        where = begin + torch.arange(width, device=self.device)
        seen = None if not any(start) else torch.arange(end, device=self.device) <= where[:, None, :, None]
        places = slice(first, first + len(blocks))
        row = torch.arange(first, first + len(blocks), device=self.device)[:, None]

        def attend(layer: int, *qkv: Tensor) -> Tensor:
            q, k, v = (x.unflatten(0, ids.shape) for x in qkv)
            keys, values = self._contexts.layers[layer]
            keys[row, :, where], values[row, :, where] = k, v
            q, k, v = (x.transpose(1, 2) for x in (q, k, v))
            scale = self._model.scale
            if seen is None:
                out = causal(q, k, v, scale)
            else:
                out = causal(q, keys[places, :, :end], values[places, :, :end], scale, seen)
            return out.transpose(1, 2).flatten(0, 1)

        last = torch.tensor(fresh, device=self.device) - 1 + width * torch.arange(len(fresh), device=self.device)
        hidden = self._model(ids.to(self.device).flatten(), where.flatten(), attend, last)
        self.computed += sum(fresh)
        for context, block in zip(contexts, blocks, strict=True):
            self._prefixes.add(context, [self._contexts.read(block.place, block.length)])
        return hidden

    def _place(self, came: Sequence[tuple[Row, Block, Tensor]]) -> None:
        first, blocks = len(self.active), [block for _, block, _ in came]
        copied = [(first + i, block) for i, block in enumerate(blocks) if not block.shared]
        longest = max((block.length for _, block in copied), default=0)
        self._own.reserve(first + len(came), longest + 1)
        if copied:
            target, source = (
                torch.tensor(x, device=self.device) for x in zip(*((i, b.place) for i, b in copied), strict=True)
            )
            self._own.take(target, self._contexts, source, longest)
        self.active += [row for row, _, _ in came]
        self._mine += [block if block.shared else None for block in blocks]
        self._length = np.append(self._length, [0 if block.shared else block.length for block in blocks])
        fresh = torch.stack([hidden for _, _, hidden in came])
        self.hidden = fresh if self.hidden is None else torch.cat([self.hidden, fresh])
        self._let_go([block for _, block in copied])
        self._seats = self._step = None

    def _let_go(self, blocks: Sequence[Block]) -> None:
        """A row less needs each of these blocks; the last blocks take the places of those that nobody needs."""
        for block in blocks:
            block.rows -= 1
            if block.rows:
                continue
            last = self._blocks.pop()
            if last is not block:
                self._contexts.take(block.place, self._contexts, last.place, last.length)
                self._blocks[block.place], last.place = last, block.place

    # A step ----------------------------------------------------------------------------------------------------------

    def step(self, token: Tensor, over: np.ndarray) -> list[Request]:
        """See :class:`~policyopt.engine.local.stepper.Stepper`."""
        ended: list[Request | None] = []
        if over.any():
            ended = [self._closed(int(i)) for i in np.flatnonzero(over)]
            token = token[torch.from_numpy(self._compact(over)).to(self.device)]
        self.hidden = self._pass(token) if self.active else None
        self._length += 1
        return [request for request in ended if request is not None]

    def _compact(self, over: np.ndarray) -> np.ndarray:
        """Let the last rows take the places of those that have ended. Returns the old place of each row that stays."""
        left = [block for block, out in zip(self._mine, over, strict=True) if out and block is not None]
        order, movers, holes = remaining(over)
        if len(holes):
            source, target = (torch.from_numpy(x).to(self.device) for x in (movers, holes))
            self._own.take(target, self._own, source, int(self._length[movers].max()))
        self.active = [self.active[i] for i in order]
        self._mine = [self._mine[i] for i in order]
        self._length = self._length[order]
        self._let_go(left)
        self._seats = self._step = None
        return order

    def _closed(self, i: int) -> Request | None:
        row, block = self.active[i], self._mine[i]
        if row.request.keep:
            text = (*row.request.prompt, *row.response.tokens[:-1])  # the last one was drawn, and is not always read
            shared = 0 if block is None else block.length
            held = self._own.read(i, len(text) - shared)
            if block is not None:
                context = self._contexts.read(block.place, shared)
                held = torch.cat([context[0], held[0]], -2), torch.cat([context[1], held[1]], -2)
            self._prefixes.add(text, [held])
        return self.closed(row)

    def _pass(self, token: Tensor) -> Tensor:
        """Run one token of every active row, [B]. Returns hidden states [B, H]."""
        size, end = len(token), int(self._length.max()) + 1
        self.computed += size
        if self._steps is None:
            return self._run(self._inputs(token, end))
        if self._step is None or end > self._step.inputs.end:
            wide = token.new_zeros(rounded(size))
            inputs = self._inputs(wide, rounded(end, ROOM))
            self._step = self._steps.filled(inputs, self._stamp())
        return self._step(token)

    def _inputs(self, token: Tensor, end: int) -> Inputs:
        """Of a step that passes tokens [B] for the active rows, and for no row where there are more."""
        at, before = np.zeros(len(token), dtype=np.int64), np.zeros(len(token), dtype=np.int64)
        at[: len(self._length)] = self._length
        before[: len(self._mine)] = [0 if block is None else block.length for block in self._mine]
        self._own.reserve(len(token), end)
        self._model.reserve(end + int(before.max()))
        level = self._steps is None and bool((at == end - 1).all())
        seats = self._seated(len(token)) if before.any() else None
        own, where = (torch.from_numpy(x).to(self.device) for x in (at, at + before))
        return Inputs(token, own, where, end, level, seats)

    def _stamp(self) -> tuple[int, ...]:
        """Where everything lies that a step reads beside its inputs."""
        kept = (self._own.k, self._own.v, self._contexts.k, self._contexts.v)
        return (*self._model.addresses(), *(x.data_ptr() for x in kept))

    def _run(self, inputs: Inputs) -> Tensor:
        """A step: nothing of it depends on the numbers in a tensor, and none is sent to the device or brought from it."""
        at, end, seats, size = inputs.at, inputs.end, inputs.seats, len(inputs.token)
        behind = None if inputs.level else torch.arange(end, device=self.device) > at[:, None]
        mask = None if behind is None else _hidden(behind, self._model.dtype)
        rows = torch.arange(size, device=self.device)
        heads = (self._model.kv_heads, -1)

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            keys, values = self._own.layers[layer]
            if inputs.level:
                keys[:size, :, end - 1], values[:size, :, end - 1] = k, v
            else:
                keys[rows, :, at], values[rows, :, at] = k, v
            q = q.unflatten(1, heads)
            mine = (q, keys[:size, :, :end], values[:size, :, :end], mask, self._model.scale)
            out = alone(*mine) if seats is None else joined(attended(*mine), self._shared(layer, q, seats))
            return out.flatten(1, 2)

        return self._model(inputs.token, inputs.where, attend)

    def _shared(self, layer: int, q: Tensor, seats: Seats) -> tuple[Tensor, Tensor]:
        """What queries [B, K, G, D] attend to in the blocks, [B, K, G, D], with the logarithms of its normalisers: those of all
        rows of a block are rows of one product."""
        group = q.shape[2]
        asked = q.transpose(0, 1)[:, seats.row].unflatten(1, (seats.blocks, -1)).flatten(2, 3).transpose(0, 1)
        k, v = (x[: seats.blocks, :, : seats.length] for x in self._contexts.layers[layer])
        out, total = attended(asked, k, v, seats.mask, self._model.scale)
        out = out.transpose(1, 2).unflatten(1, (-1, group)).flatten(0, 1)[seats.place].transpose(1, 2)
        total = total.transpose(1, 2).unflatten(1, (-1, group)).flatten(0, 1)[seats.place].transpose(1, 2)
        return out, total if seats.absent is None else total.masked_fill(seats.absent, -torch.inf)

    def _seated(self, size: int) -> Seats:
        """The seats of the active rows, of ``size`` in all; they hold until a row comes or goes."""
        if self._seats is not None:
            return self._seats
        rows: dict[Block, list[int]] = {}
        for i, block in enumerate(self._mine):
            if block is not None:
                rows.setdefault(block, []).append(i)
        blocks, most = 1 + max(block.place for block in rows), max(map(len, rows.values()))
        longest = max(block.length for block in rows)
        fixed = self._steps is not None
        if fixed:
            blocks, most, longest = rounded(blocks), rounded(most), rounded(longest, ROOM)
            self._contexts.reserve(blocks, longest)
        seat, place = np.zeros((blocks, most), dtype=np.int64), np.zeros(size, dtype=np.int64)
        absent = np.ones((size, 1, 1), dtype=bool)
        for block, some in rows.items():
            seat[block.place, : len(some)] = some
            place[some] = block.place * most + np.arange(len(some))
            absent[some] = False
        length = np.ones(blocks, dtype=np.int64)
        known = self._blocks[:blocks]
        length[: len(known)] = [block.length for block in known]
        behind = torch.from_numpy(np.arange(longest) >= length[:, None]).to(self.device)
        self._seats = Seats(
            blocks, torch.from_numpy(seat.ravel()).to(self.device), torch.from_numpy(place).to(self.device),
            torch.from_numpy(absent).to(self.device) if fixed or absent.any() else None,
            _hidden(behind, self._model.dtype) if fixed or behind.any() else None, longest,
        )  # fmt: skip
        return self._seats


def _hidden(what: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask to be added, [B, 1, 1, L], which hides the places [B, L]."""
    return torch.zeros(what.shape, dtype=dtype, device=what.device).masked_fill(what, -torch.inf)[:, None, None]
