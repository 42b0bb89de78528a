"""The next token of every row in flight: processors, temperature, the draw, and what is noted of it."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Sequence

import numpy as np
import torch
from torch import Tensor

from policyopt.engine.local.requests import Row
from policyopt.engine.programs import ended
from policyopt.engine.streams import uniforms
from policyopt.models.head import SHORT
from policyopt.models.stops import Stops
from policyopt.sources.truncation import BOUND, left
from policyopt.spans import span

FLAT, BLOCK = 4096, 512
"""Tokens of a vocabulary whose probabilities are added up one by one, and in blocks of how many those of a larger one are."""

CACHED = 1 << 19
"""Logits of a large vocabulary that are worked on at once, so that they stay in the cache of a CPU."""

HELD = 64
"""Tokens of a row that are held before they are written down."""


class Draws:
    """Draws the next tokens of every row in flight.

    Rows of plain requests are drawn together in a few operations on all of them, which nobody has to look at before the next:
    :meth:`begin` says how many tokens may be drawn one after another, :meth:`look` which rows have ended by them. What is noted
    of the tokens is held in arrays and written into a response when its row ends, and for all rows by :meth:`write`, which has
    to come before anybody else reads the responses. Other rows are drawn by :func:`draw`, as are those beside them.
    """

    def __init__(self, stops: Stops | None) -> None:
        self._eos, self._stops = frozenset[int](), stops
        self._ends = np.zeros(0, dtype=bool)
        """[V] which tokens end a response."""
        self._rows: list[Row] = []
        self._seats = np.zeros(0, dtype=np.int64)
        """[B] of these rows."""
        self._version = 0
        """Of the weights that what is held was drawn from."""
        self._held = np.zeros((3, 0, HELD))
        """[3, S, HELD] token, log-probability and entropy, for S seats of rows."""
        self._count = np.zeros(0, dtype=np.int64)
        """[S] how many tokens are held."""
        self._fresh: list[Tensor] = []
        """Token, log-probability and entropy [B] of each token since the last look, where they were worked out."""
        self._over = np.zeros(0, dtype=bool)
        """[B] the rows that ended by a token of :func:`draw`."""

    def begin(
        self, rows: Sequence[Row], version: int, eos: frozenset[int], vocab: int, device: torch.device, ahead: int
    ) -> int:
        """Get ready to draw for rows. Returns how many tokens of each are to be drawn before the next look, at most ``ahead``:
        one where more than the numbers of a row decides on its next token, and no more than the longest budget that is left.
        ``eos`` are the ids that end a response."""
        if eos != self._eos or len(self._ends) != vocab:
            self._eos, self._ends = eos, np.isin(np.arange(vocab), list(eos))
        if version != self._version:
            self.write()
            self._version = version
        if self._rows != rows:
            self._seat(list(rows), device)
        if not self._plain:
            self.write()
            self._rows, self._seats, self._now = [], self._seats[:0], rows
            return 1
        self._room = HELD - ahead
        self._left = self._end - self._at
        at = self._at + np.arange(min(ahead, int(self._left.max())))[:, None]
        self._u = torch.from_numpy(uniforms(self._keys, at.astype(np.uint64))).to(device)
        return len(at)

    @span("choose")
    def __call__(self, logits: Tensor) -> Tensor:
        """Draw a token for each row from logits [B, V]. Returns the tokens [B]."""
        if not self._plain:
            token, self._over = draw(logits, self._now, eos=self._eos, stops=self._stops, version=self._version)
            return token
        found = picked(logits, self._u[len(self._fresh) // 3], self._heat, self._greedy)
        self._fresh += found
        return found[0]

    @span("note")
    def look(self) -> np.ndarray:
        """Note what was drawn since :meth:`begin`, of each row up to its end. Returns which rows [B] have ended."""
        if not self._plain:
            return self._over
        numbers = torch.stack([x.double() for x in self._fresh]).cpu().numpy()
        numbers = numbers.reshape(-1, 3, len(self._rows)).transpose(1, 2, 0)
        self._fresh.clear()
        drawn, count = numbers.shape[2], self._count[self._seats]
        self._held[:, self._seats[:, None], count[:, None] + np.arange(drawn)] = numbers
        ends = self._ends[numbers[0].astype(np.int64)]
        kept = np.minimum(self._left, drawn)
        if ends.any():
            kept = np.minimum(kept, np.where(ends.any(1), ends.argmax(1) + 1, drawn))
        ended = ends[np.arange(len(kept)), kept - 1]
        over = ended | (kept == self._left)
        count += kept
        self._count[self._seats] = count
        self._at += kept
        for i in np.flatnonzero(over | (count > self._room)).tolist():
            self._write(i)
            self._rows[i].response.stop_reason = "eos" if ended[i] else "length"
        return over

    def write(self) -> None:
        """Write all that is held into the responses."""
        for i in range(len(self._rows)):
            self._write(i)

    def _seat(self, rows: list[Row], device: torch.device) -> None:
        """Rows have come or gone: those that stay keep their seats."""
        before = (
            {id(row): seat for row, seat in zip(self._rows, self._seats.tolist(), strict=True)} if self._rows else {}
        )
        places = max(len(self._count), len(rows))
        taken = {before[id(row)] for row in rows if id(row) in before}
        free = iter(seat for seat in range(places) if seat not in taken)
        self._seats = np.array([before[id(row)] if id(row) in before else next(free) for row in rows])
        self._held = np.concatenate([self._held, np.zeros((3, places - len(self._count), HELD))], 1)
        self._count = np.concatenate([self._count, np.zeros(places - len(self._count), dtype=np.int64)])
        self._rows, requests = rows, [row.request for row in rows]
        self._plain = self._stops is None and all(request.plain for request in requests)
        if not self._plain:
            return
        self._keys = np.array([row.key for row in rows], dtype=np.uint64)
        self._end = np.array([row.end for row in rows])
        self._at = np.array([len(row.response.tokens) for row in rows]) + self._count[self._seats]
        heat = torch.tensor([float(request.temperature) for request in requests], dtype=torch.float64)  # type: ignore[arg-type]
        greedy = heat == 0
        self._greedy = greedy.to(device) if greedy.any() else None
        heat = heat.masked_fill(greedy, 1.0)
        self._heat = None if bool((heat == 1).all()) else heat.to(device)

    def _write(self, i: int) -> None:
        seat, response = self._seats[i], self._rows[i].response
        held = self._held[:, seat, : self._count[seat]]
        response.tokens += held[0].astype(np.int64).tolist()
        response.logp += held[1].tolist()
        response.entropy += held[2].tolist()
        response.versions += [self._version] * held.shape[1]
        self._count[seat] = 0


def picked(logits: Tensor, u: Tensor, heat: Tensor | None, greedy: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """A token for each row of logits [B, V] by its random number in [0, 1), the likeliest where it is ``greedy``, with its
    log-probability and the entropy of what it is drawn from, [B] each; at temperatures ``heat``, or 1."""
    size = len(logits) if logits.device.type != "cpu" else max(1, CACHED // logits.shape[-1])
    found = []
    for start in range(0, len(logits), size):
        rows = slice(start, start + size)
        piece = logits[rows].float() if logits.dtype in SHORT else logits[rows]
        cold = None if greedy is None else piece.argmax(-1)
        logp = torch.log_softmax(piece if heat is None else piece / heat[rows, None].to(piece), -1)
        p = logp.exp()
        token = sampled(p, u[rows])
        token = token if cold is None else torch.where(greedy[rows], cold, token)  # type: ignore[index]
        mine = logp.gather(-1, token[:, None])[:, 0]
        # what cannot be drawn adds nothing, which its infinite logarithm would
        found.append((token, mine, -torch.linalg.vecdot(p, logp.clamp_(min=torch.finfo(logp.dtype).min))))
    return found[0] if len(found) == 1 else tuple(map(torch.cat, zip(*found, strict=True)))  # type: ignore[return-value]


def draw(
    logits: Tensor, rows: Sequence[Row], *, eos: Collection[int], version: int, stops: Stops | None = None
) -> tuple[Tensor, np.ndarray]:
    """Draw a token for each row from logits [B, V] and write it down. Returns the tokens [B], and which rows end by it."""
    logits = logits.float() if logits.dtype in SHORT else logits
    logits, heat = adjusted(logits, rows)
    greedy = heat == 0
    logp = torch.log_softmax(logits / torch.where(greedy, 1.0, heat)[:, None], -1)
    supports = truncate(logp, rows, greedy)
    p = logp.exp()
    u = uniforms(
        np.array([row.key for row in rows], dtype=np.uint64),
        np.array([len(row.response.tokens) for row in rows], dtype=np.uint64),
    )
    token = torch.where(greedy, logits.argmax(-1), sampled(p, torch.from_numpy(u).to(p.device)))
    for i, row in enumerate(rows):
        at = len(row.response.tokens)
        if at < len(row.request.forced):
            token[i] = row.request.forced[at]
    entropy = -(p * torch.where(p > 0, logp, 0.0)).sum(-1)
    numbers = torch.stack(
        [token.double(), logp.gather(-1, token[:, None])[:, 0].double(), entropy.double(), heat.double()]
    )
    over = np.zeros(len(rows), dtype=bool)
    for i, (row, (t, lp, h, temperature)) in enumerate(zip(rows, numbers.T.tolist(), strict=True)):
        note(row, int(t), lp, h, temperature, version, supports.get(i, ()))
        over[i] = ends(row, eos, stops)
    for i, row in enumerate(rows):
        if row.request.top:
            best = logp[i].topk(min(row.request.top, len(supports.get(i, ())) or logp.shape[-1]))
            row.response.top.append((best.indices.tolist(), best.values.tolist()))
    return token, over


def truncate(logp: Tensor, rows: Sequence[Row], greedy: Tensor) -> dict[int, Sequence[int]]:
    """Make log-probabilities [B, V] those of truncated draws, in place, where rows ask for it and are not greedy. Returns
    by row what each is drawn from, where that is not the whole vocabulary."""
    asked = {i: row.request.truncation for i, row in enumerate(rows) if row.request.truncation}
    if not asked:
        return {}
    mine = [i for i, cold in enumerate(greedy.tolist()) if i in asked and not cold]
    if not mine:
        return {}
    bounds = [[t.min_p, t.top_k or BOUND + 1, t.top_p] for t in (asked[i] for i in mine)]
    whole = logp[mine]
    best = whole.topk(min(BOUND, whole.shape[-1]))
    stays = left(best.values.exp(), *torch.tensor(bounds, dtype=logp.dtype, device=logp.device).T)
    support = torch.zeros_like(whole, dtype=torch.bool).scatter_(-1, best.indices, stays)
    for place, i in enumerate(mine):
        at = len(rows[i].response.tokens)
        if at < len(rows[i].request.forced):
            support[place, rows[i].request.forced[at]] = True
    logp[mine] = whole.masked_fill(~support, -torch.inf).log_softmax(-1)
    ids = support.nonzero()[:, 1].tolist()
    ends = support.sum(-1).cumsum(0).tolist()
    found = zip(mine, [0, *ends], ends, strict=False)
    return {i: array("i", ids[start:end]) for i, start, end in found if end - start < whole.shape[-1]}


def sampled(p: Tensor, u: Tensor) -> Tensor:
    r"""The token [B] at which the sum of the probabilities p [B, V] before it and its own first exceeds u [B] of all,
    :math:`\min\{v: \sum_{w \le v} p_w > u \sum_w p_w\}`, in float64; in a large vocabulary first the block of tokens, then the one
    in it."""
    width = p.shape[-1]
    if width <= FLAT:
        sums = p.cumsum(-1, dtype=torch.float64)
        return _exceeding(sums, u[:, None] * sums[:, -1:])[:, 0]
    even = width // BLOCK * BLOCK
    blocks = p[:, :even].unflatten(-1, (-1, BLOCK)).sum(-1)
    blocks = torch.cat([blocks, p[:, even:].sum(-1, keepdim=True)], -1)
    sums = blocks.cumsum(-1, dtype=torch.float64)
    target = u[:, None] * sums[:, -1:]
    block = _exceeding(sums, target)
    ids = block * BLOCK + torch.arange(BLOCK, device=p.device)
    within = p.gather(-1, ids.clamp(max=width - 1)).masked_fill(ids >= width, 0.0).cumsum(-1, dtype=torch.float64)
    before = sums.gather(-1, block) - blocks.gather(-1, block)
    return (block * BLOCK + _exceeding(within, target - before))[:, 0]


def _exceeding(sums: Tensor, target: Tensor) -> Tensor:
    """The first places [B, 1] at which rising sums [B, N] exceed targets [B, 1]; those beyond the last sum by rounding stay
    below it, so that nothing of probability 0 is drawn."""
    below = torch.minimum(target, sums[:, -1:] * (1 - 2**-52))
    return torch.searchsorted(sums, below, right=True).clamp(max=sums.shape[-1] - 1)  # NaN exceeds nothing


def adjusted(logits: Tensor, rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
    """The logits after the processors of the requests, and the temperature of each row."""
    by_request: dict[int, list[int]] = {}
    fixed = [0.0 if callable(row.request.temperature) else row.request.temperature for row in rows]
    heat = torch.tensor(fixed, dtype=logits.dtype, device=logits.device)
    for i, row in enumerate(rows):
        if row.request.processor is not None or callable(row.request.temperature):
            by_request.setdefault(id(row.request), []).append(i)
    if by_request:
        logits = logits.clone()
    for places in by_request.values():
        request = rows[places[0]].request
        if request.processor is not None:
            logits[places] = request.processor(logits[places], [rows[i].response.tokens for i in places])
        if callable(request.temperature):
            heat[places] = request.temperature(logits[places]).to(heat)
    return logits, heat


def note(row: Row, token: int, logp: float, entropy: float, heat: float, version: int, support: Sequence[int]) -> None:
    """Write a token down."""
    response = row.response
    if len(support):
        response.support += [()] * (len(response.tokens) - len(response.support))
        response.support.append(support)
    response.tokens.append(token)
    response.logp.append(logp)
    response.entropy.append(entropy)
    response.versions.append(version)
    if callable(row.request.temperature):
        response.heat.append(heat)


def ends(row: Row, eos: Collection[int], texts: Stops | None) -> bool:
    """Whether a response ends by its last token."""
    response, until = row.response, row.request.until
    if until is not None:
        response.stop_reason = "stop" if until(response.tokens) else "length"
    else:
        response.stop_reason = ended(response.tokens, eos, texts, row.request.stop.get(response.tokens[-1], ()))
    return response.stop_reason != "length" or len(response.tokens) >= row.end
