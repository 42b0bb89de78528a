"""The local sampler: everything in flight runs as one batch that is refilled as rows end, and nothing that requests share is
computed twice."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
from collections import deque
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from policyopt.engine.prefixes import Prefixes
from policyopt.engine.slots import Slots
from policyopt.errors import UserError
from policyopt.models.load import Policy
from policyopt.models.logprobs import SplitModel, response_columns, split_model
from policyopt.rows import Batch, make_batch
from policyopt.sources.program import Heat, Processor, Response

X = TypeVar("X")

KEEP_BYTES = 1 << 30
"""Keys and values that are held for later requests."""

_READ_TOKENS = 16_384  # of contexts that are read at once


def stream_key(key: Iterable[int]) -> int:
    """A 64-bit key from numbers such as (seed, step, prompt, sample)."""
    data = ",".join(str(int(k)) for k in key).encode()
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def uniforms(keys: np.ndarray, position: np.ndarray | int) -> np.ndarray:
    """One uniform number in [0, 1) for each 64-bit key at a position: splitmix64, so it depends on nothing else."""
    with np.errstate(over="ignore"):
        x = keys + (np.asarray(position, dtype=np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((x ^ (x >> np.uint64(31))) >> np.uint64(11)) * 2.0**-53


@dataclass
class _Request:
    """What rows have in common."""

    prompt: tuple[int, ...]
    temperature: float | Heat
    stop: Mapping[int, Sequence[tuple[int, ...]]]
    """Stop sequences by their last token: there may be thousands, as where every token with a line break is one."""
    forced: tuple[int, ...]
    processor: Processor | None
    top: int
    keep: bool
    done: asyncio.Future[list[Response]]
    rows: list[_Row] = field(default_factory=list)
    open: int = 0
    """Rows that have not ended."""


@dataclass
class _Row:
    """A response under way."""

    request: _Request
    key: int
    response: Response
    end: int
    """How many tokens the response may have in all."""
    context: tuple[int, ...]
    """What has to be read before the next token is drawn."""


@dataclass
class _Written:
    """A response of somebody else that is to be scored."""

    tokens: tuple[int, ...]
    written: tuple[int, ...]
    temperature: float
    done: asyncio.Future[Response]

    def __len__(self) -> int:
        return len(self.tokens) + len(self.written)


class LocalSampler:
    """Samples from a model in this process.

    Every row draws from its own stream of random numbers, so a request gives the same tokens whatever else is in
    flight, up to the float noise of matrix products of another shape (a draw that falls within it of a boundary between
    two tokens can differ). At most ``max_rows`` rows run at once; as one ends, the next that waits takes its place.

    Raises :class:`~policyopt.errors.UserError` for a model that cannot be decoded step by step from a key-value cache.
    """

    def __init__(
        self, split: SplitModel, eos: Sequence[int], device: torch.device | str = "cpu", max_rows: int = 512
    ) -> None:
        self.split, self.device, self.max_rows, self.version = split, torch.device(device), max_rows, 0
        self.eos = frozenset(eos)
        self.computed = 0
        """Tokens that went through the model so far, prompts included (what is shared counts once)."""
        self.drawn = 0
        """Tokens that were drawn so far."""
        self._config: Any = getattr(split.hidden, "config", None)
        takes = inspect.signature(getattr(split.hidden, "forward", split.hidden)).parameters
        self._positions = "position_ids" in takes
        self._slots = Slots(self._config)
        self._prefixes = Prefixes(KEEP_BYTES if self._positions else 0)
        self._held_version = 0
        self._waiting: deque[_Row] = deque()
        self._ready: deque[tuple[_Row, int, Tensor]] = deque()
        """Rows whose context has been read: with its slot, and the hidden state of its last token."""
        self._active: list[_Row] = []
        self._written: list[_Written] = []
        self._length = np.zeros(0, dtype=np.int64)
        self._hidden: Tensor | None = None
        self._worker: asyncio.Task[None] | None = None
        self._interrupted = False
        self._prove()

    @classmethod
    def of(cls, policy: Policy) -> LocalSampler:
        """The sampler of a policy."""
        return cls(split_model(policy.model), policy.eos, next(policy.model.parameters()).device)

    @torch.no_grad()
    def _prove(self) -> None:
        """Decode prompts of unlike length step by step, in fewer places than there are rows and from a kept beginning,
        and compare with passing them whole.

        Layers that keep another state than keys and values (recurrent ones) fail here, before any work is lost.
        """
        name, asked = type(self.split.hidden).__name__, [(0,), (1, 2, 3), (1, 2, 3, 4)]
        rows, self.max_rows = self.max_rows, 2
        try:
            found = self.run([self.generate(p, max_tokens=3, key=(i,), keep=True) for i, p in enumerate(asked)])
        except Exception as error:  # whatever a model raises that takes no such cache
            raise UserError(
                f"{name} cannot be sampled from with a key-value cache ({error}); it is not supported"
            ) from error
        self.max_rows, self.computed, self.drawn = rows, 0, 0
        self._prefixes.clear()
        for prompt, [response] in zip(asked, found, strict=True):
            ids = torch.tensor([[*prompt, *response.tokens]], device=self.device)
            hidden = self.split.hidden(input_ids=ids, use_cache=False).last_hidden_state[0, len(prompt) - 1 : -1]
            logp = self.split.logits(hidden).float().log_softmax(-1).gather(-1, ids[0, len(prompt) :, None])[:, 0]
            tolerance = 1e-3 if hidden.dtype in (torch.float32, torch.float64) else 0.5
            # "not <=" rather than ">", so that NaN fails too
            if not float((logp.cpu() - torch.tensor(response.logp)).abs().max()) <= tolerance:
                raise UserError(
                    f"{name} in {hidden.dtype} gives other probabilities step by step than at once; it is not supported"
                )

    # Requests --------------------------------------------------------------------------------------------------------

    async def generate(
        self, tokens: Sequence[int], *, n: int = 1, max_tokens: int, temperature: float | Heat = 1.0,
        key: tuple[int, ...], stop: Sequence[Sequence[int]] = (), forced: Sequence[int] = (),
        processor: Processor | None = None, top: int = 0, keep: bool = False, resume: Response | None = None,
    ) -> list[Response]:  # fmt: skip
        """See :class:`~policyopt.sources.program.Sampler`. Raises ``ValueError`` for a request that cannot be."""
        if n < 1 or (resume is not None and n != 1) or not len(tokens):
            raise ValueError(
                f"a request for {n} responses to {len(tokens)} tokens: at least one of each is needed, and one to resume"
            )
        loop = asyncio.get_running_loop()
        self._forget_other_loops(loop)
        prompt = tuple(map(int, tokens))
        ends: dict[int, list[tuple[int, ...]]] = {}
        for sequence in stop:
            ends.setdefault(sequence[-1], []).append(tuple(sequence))
        request = _Request(prompt, temperature, ends, tuple(forced), processor, top, keep, loop.create_future())
        for i in range(n):
            response = resume or Response([], [], [], False)
            response.stopped = False
            response.temperature = 1.0 if callable(temperature) else temperature or 1.0
            end = len(response.tokens) + max_tokens
            row = _Row(request, stream_key((*key, i)), response, end, (*prompt, *response.tokens))
            request.rows.append(row)
        if max_tokens < 1:
            return [row.response for row in request.rows]
        request.open = n
        self._waiting.extend(request.rows)
        self._start(loop)
        return await request.done

    async def score(self, tokens: tuple[int, ...], written: tuple[int, ...], *, temperature: float) -> Response:
        """What the policy thinks of a response that it did not write; what is asked for at the same time is one batch.
        See :class:`~policyopt.sources.program.Sampler`."""
        loop = asyncio.get_running_loop()
        self._forget_other_loops(loop)
        asked = _Written(tuple(tokens), tuple(written), temperature, loop.create_future())
        self._written.append(asked)
        self._start(loop)
        return await asked.done

    def interrupt(self) -> None:
        """Hand back everything in flight as it stands, at the next token; ``resume`` goes on with it."""
        self._interrupted = bool(self._active or self._ready or self._waiting)

    def forget(self) -> None:
        """Let go of what is held for later requests."""
        self._prefixes.clear()

    def run(self, programs: Sequence[Awaitable[X]]) -> list[X]:
        """Run rollout programs to their end, together, and return what each returned, in order.

        Nothing is held from one run to the next: what is drawn depends on the programs alone, to the bit, also in a
        process that has just been resumed.
        """

        async def together() -> list[X]:
            self.forget()
            return await asyncio.gather(*programs)

        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run(together())
        with ThreadPoolExecutor(1) as pool:  # a notebook's own event loop is running in this thread
            return pool.submit(asyncio.run, together()).result()

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._worker is None:
            self._worker = loop.create_task(self._work())

    def _forget_other_loops(self, loop: asyncio.AbstractEventLoop) -> None:
        """What programs asked for in a loop that has ended since, cut short by an error, is nobody's any more."""
        if self._worker is not None and self._worker.get_loop() is not loop:
            self._drop_all()
            self._written.clear()
            self._worker, self._interrupted = None, False

    # The batch -------------------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        """Decode until nothing is in flight; programs take their turns between two tokens."""
        try:
            for _ in range(2):  # every program that is ready now asks first
                await asyncio.sleep(0)
            while self._waiting or self._ready or self._active or self._written:
                scored = self._score()
                ended = self._advance()
                for request in ended:
                    if not request.done.done():
                        request.done.set_result([row.response for row in request.rows])
                for _ in range(4 if ended or scored else 1):  # who has an answer may ask for more before the next token
                    await asyncio.sleep(0)
        except BaseException as error:  # hand it to whoever waits, rather than to the event loop
            waiting: list[asyncio.Future[Any]] = [r.done for r in self._drop_all()]
            waiting += [asked.done for asked in self._written]
            self._written.clear()
            for done in waiting:
                if not done.done():
                    done.set_exception(error)
            if isinstance(error, asyncio.CancelledError):
                raise
        finally:
            self._worker = None

    @torch.no_grad()
    def _score(self) -> bool:
        """Score all that waits for it, rows of like length together. Returns whether there was anything."""
        waiting = sorted(self._written, key=len)
        exact = next(self.split.hidden.parameters()).dtype == torch.float64  # type: ignore[attr-defined]
        dtype = torch.float64 if exact else torch.float32
        while waiting:
            rows = max(1, _READ_TOKENS // len(waiting[-1]))
            piece, waiting = waiting[-rows:], waiting[:-rows]
            found = response_columns(self.split, _batch(piece, dtype, self.device), entropy=True)
            self.computed += sum(map(len, piece))
            for i, asked in enumerate(piece):
                n = len(asked.written)
                logp, entropy = (found[name][i, :n].tolist() for name in ("logp", "entropy"))
                scored = Response(list(asked.written), logp, entropy, asked.written[-1] in self.eos)
                scored.versions, scored.temperature = [self.version] * n, asked.temperature
                if not asked.done.done():
                    asked.done.set_result(scored)
        found_any, self._written = bool(self._written), []
        return found_any

    @torch.no_grad()
    def _advance(self) -> list[_Request]:
        """One token for every row in flight. Returns the requests that are complete by it."""
        if self._interrupted:
            return self._cut()
        self._admit()
        if not self._active:
            return []
        token, over = self._draw()
        ended = [self._close(int(i)) for i in np.flatnonzero(over)]
        stay = self._compact(over)
        if len(stay):
            places = torch.from_numpy(stay).to(self.device)
            self._hidden = self._pass(None, token[places][:, None], self._length)[:, -1]
            self._length += 1
        else:
            self._hidden = None
        return [request for request in ended if request is not None]

    def _cut(self) -> list[_Request]:
        self._interrupted = False
        return self._drop_all()

    def _drop_all(self) -> list[_Request]:
        """Let go of every row. Returns their requests, each once."""
        rows = [*self._active, *(row for row, _, _ in self._ready), *self._waiting]
        self._active, self._hidden, self._length = [], None, self._length[:0]
        self._ready.clear()
        self._waiting.clear()
        return list({id(row.request): row.request for row in rows}.values())

    def _close(self, i: int) -> _Request | None:
        """A row has ended; returns its request where it was the last."""
        row, length = self._active[i], int(self._length[i])
        request = row.request
        if request.keep:  # the last token has been drawn but not read
            whole = (*request.prompt, *row.response.tokens)
            self._prefixes.add(whole[:length], self._slots.read(i, length))
        request.open -= 1
        return None if request.open else request

    def _compact(self, over: np.ndarray) -> np.ndarray:
        """Move the last rows into the places of those that have ended. Returns the old place of each row that stays."""
        stay = np.flatnonzero(~over)
        if len(stay) == len(over):
            return stay
        holes = np.flatnonzero(over[: len(stay)])
        movers = stay[stay >= len(stay)]
        order = np.arange(len(stay))
        order[holes] = movers
        if len(holes):
            source, target = (torch.from_numpy(x).to(self.device) for x in (movers, holes))
            self._slots.copy(source, target, int(self._length[movers].max()))
        self._active = [self._active[i] for i in order]
        self._length = self._length[order]
        return order

    def _admit(self) -> None:
        """Give every free place to a row that waits. Their contexts are read some rows ahead, many at once."""
        if self._held_version != self.version:
            self._prefixes.clear()
            self._held_version = self.version
        while (free := self.max_rows - len(self._active)) and (self._ready or self._read_ahead(len(self._active))):
            # what was read has to be in its place before the next contexts are read over it
            self._place([self._ready.popleft() for _ in range(min(free, len(self._ready)))])

    def _place(self, came: Sequence[tuple[_Row, int, Tensor]]) -> None:
        """Move rows whose contexts have been read behind the active ones."""
        first, length = len(self._active), np.array([len(row.context) for row, _, _ in came])
        source = torch.tensor([slot for _, slot, _ in came], device=self.device)
        self._slots.copy(source, torch.arange(first, first + len(came), device=self.device), int(length.max()))
        self._active += [row for row, _, _ in came]
        self._length = np.concatenate([self._length, length])
        fresh = torch.stack([hidden for _, _, hidden in came])
        self._hidden = fresh if self._hidden is None else torch.cat([self._hidden, fresh])

    def _read_ahead(self, active: int) -> bool:
        """Read the contexts of the next rows, each distinct one once and as far as it is not held already, into slots
        behind the ``active`` ones. Returns whether there were any."""
        most = max(self.max_rows - active, self.max_rows // 2)
        rows: list[_Row] = []
        distinct: dict[tuple[int, ...], int] = {}
        while self._waiting and len(rows) < most:
            row = self._waiting[0]
            longest = max(map(len, [*distinct, row.context]))
            if rows and longest * (len(distinct) + 1) > _READ_TOKENS and row.context not in distinct:
                break
            self._waiting.popleft()
            if not row.request.done.done():  # else its program was cancelled meanwhile
                rows.append(row)
                distinct.setdefault(row.context, len(distinct))
        if not rows:
            return False
        base = min(self.max_rows, active + len(rows))
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
        fresh = [len(context) - int(s) for context, s in zip(contexts, start, strict=True)]
        ids = torch.zeros(len(contexts), max(fresh), dtype=torch.long)
        for i, (context, s) in enumerate(zip(contexts, start, strict=True)):
            ids[i, : fresh[i]] = torch.tensor(context[int(s) :])
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
        out = self.split.hidden(input_ids=ids, past_key_values=self._slots.cache, use_cache=True, **keywords)
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
        dtype = next(self.split.hidden.parameters()).dtype  # type: ignore[attr-defined]
        return torch.where(seen, 0.0, torch.finfo(dtype).min).to(dtype)

    # Tokens ----------------------------------------------------------------------------------------------------------

    def _draw(self) -> tuple[Tensor, np.ndarray]:
        """Draw a token for each row and write it down. Returns the tokens [B], and which rows end by it."""
        assert self._hidden is not None
        rows = self._active
        self.drawn += len(rows)
        logits = self.split.logits(self._hidden)
        logits = logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits
        logits, heat = self._adjusted(logits)
        greedy = heat == 0
        logp = torch.log_softmax(logits / torch.where(greedy, 1.0, heat)[:, None], -1)
        p = logp.exp()
        cdf = p.cumsum(-1, dtype=torch.float64)
        u = uniforms(
            np.array([row.key for row in rows], dtype=np.uint64),
            np.array([len(row.response.tokens) for row in rows], dtype=np.uint64),
        )
        target = torch.from_numpy(u).to(self.device)[:, None] * cdf[:, -1:]
        drawn = torch.searchsorted(cdf, target, right=True)[:, 0].clamp(max=logits.shape[-1] - 1)
        token = torch.where(greedy, logits.argmax(-1), drawn)
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
            over[i] = self._note(row, int(t), lp, h, temperature)
        for i, row in enumerate(rows):
            if row.request.top:
                best = logp[i].topk(min(row.request.top, logp.shape[-1]))
                row.response.top.append((best.indices.tolist(), best.values.tolist()))
        return token, over

    def _adjusted(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """The logits after the processors of the requests, and the temperature of each row."""
        rows = self._active
        by_request: dict[int, list[int]] = {}
        fixed = [0.0 if callable(row.request.temperature) else row.request.temperature for row in rows]
        heat = torch.tensor(fixed, dtype=logits.dtype, device=self.device)
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

    def _note(self, row: _Row, token: int, logp: float, entropy: float, heat: float) -> bool:
        """Write a token down. Returns whether the response ends by it."""
        response, request = row.response, row.request
        response.tokens.append(token)
        response.logp.append(logp)
        response.entropy.append(entropy)
        response.versions.append(self.version)
        if callable(request.temperature):
            response.heat.append(heat)
        response.finished = token in self.eos
        ends = request.stop.get(token, ())
        response.stopped |= any(tuple(response.tokens[-len(end) :]) == end for end in ends)
        return response.finished or response.stopped or len(response.tokens) >= row.end


def _batch(asked: Sequence[_Written], dtype: torch.dtype, device: torch.device) -> Batch:
    """Responses of somebody else as rows."""

    def padded(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        ids = [torch.tensor(row, device=device) for row in rows]
        ones = [torch.ones(len(row), dtype=dtype, device=device) for row in rows]
        return pad_sequence(ids, batch_first=True), pad_sequence(ones, batch_first=True)

    prompt, prompt_mask = padded([x.tokens for x in asked])
    tokens, mask = padded([x.written for x in asked])
    heat = torch.tensor([x.temperature for x in asked], dtype=dtype, device=device)
    return make_batch(mask=mask, tokens=tokens, prompt=prompt, prompt_mask=prompt_mask, temperature=heat)
