"""The local sampler: everything in flight runs as one batch that is refilled as rows end, and nothing that requests share is
computed twice."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from policyopt.engine.local.flight import Flight
from policyopt.engine.local.lean import Lean
from policyopt.engine.local.level import Level, Whole
from policyopt.engine.local.requests import Request, Row, Written, as_batch
from policyopt.engine.local.stepper import READ_TOKENS, Stepper
from policyopt.engine.local.tokens import Draws
from policyopt.engine.programs import carried_out, check_request, ended, hand_over
from policyopt.engine.streams import stream_key
from policyopt.errors import UserError, first_line
from policyopt.models.likelihood import Stepwise, Wanted
from policyopt.models.load import Policy
from policyopt.models.proof import Reach, check_finite, probe_ids, reach
from policyopt.models.routing import Routers
from policyopt.models.stops import Stops
from policyopt.sources.program import Heat, Processor, Response
from policyopt.sources.truncation import Truncation
from policyopt.spans import span

X = TypeVar("X")


STEPPERS: tuple[tuple[type[Stepper], str | None], ...] = (
    (Lean, None),
    (Flight, ""),
    (Level, "rows of equal length at a time, with the model's own cache, and shared prompts once for each row"),
    (Whole, "each text is read anew for every token"),
)
"""Ways of decoding, the fastest first; each with what a person is told where it has to be taken. The first is for models of
one build, and nobody is told where it is not taken."""


class LocalSampler:
    """Samples from a model in this process.

    Every row draws from its own stream of random numbers, so a request gives the same tokens whatever else is in
    flight, up to the float noise of matrix products of another shape (a draw that falls within it of a boundary between
    two tokens can differ). At most ``max_rows`` rows run at once; as one ends, the next that waits takes its place.

    With ``routers`` it records the experts that every token is sent to (``Response.routes``).

    It decodes in the fastest of the :data:`STEPPERS` that a probe proves right, past any window of the model that the
    probe can reach. Raises :class:`~policyopt.errors.UserError` with the reasons where none is.
    """

    def __init__(
        self, split: Stepwise, eos: Sequence[int], device: torch.device | str = "cpu", max_rows: int = 512,
        stops: Stops | None = None, routers: Routers | None = None,
    ) -> None:  # fmt: skip
        self.split, self.device = split, torch.device(device)
        self.eos, self.stops, self.routers = frozenset(eos), stops, routers
        self._draws = Draws(stops)
        self.drawn = 0
        """Tokens that were drawn so far, those behind the end of a row included."""
        self._written: list[Written] = []
        self._worker: asyncio.Task[None] | None = None
        self._interrupted = False
        self.slow = ""
        """Why it draws slowly and how, for people; empty where it does not."""
        self.stepper = self._proven(max_rows)

    @classmethod
    def of(cls, policy: Policy) -> LocalSampler:
        """The sampler of a policy."""
        device = next(policy.model.parameters()).device
        return cls(policy.likelihood(), policy.eos, device, stops=policy.text.stops)

    @property
    def max_rows(self) -> int:
        """How many rows run at once."""
        return self.stepper.max_rows

    @max_rows.setter
    def max_rows(self, rows: int) -> None:
        self.stepper.max_rows = rows

    @property
    def version(self) -> int:
        """Of the weights that it draws from."""
        return self.stepper.version

    @version.setter
    def version(self, version: int) -> None:
        self.stepper.version = version

    @property
    def computed(self) -> int:
        """Tokens that went through the model so far, prompts included (what is shared counts once)."""
        return self.stepper.computed

    def forget(self) -> None:
        """Let go of what is held for later requests."""
        self.stepper.forget()

    def close(self) -> None:
        """There is nothing outside this process."""

    # The proof -------------------------------------------------------------------------------------------------------

    def _proven(self, max_rows: int) -> Stepper:
        """The fastest way of decoding that gives what the model gives when it reads whole texts."""
        name, far = type(self.split.hidden).__name__, reach(self.split.hidden)  # type: ignore[arg-type]
        text = tuple(probe_ids(far.length + 3, self.split.vocab, self.device)[0].tolist())
        self._check_whole(name, text)
        reasons: list[str] = []
        for kind, how in STEPPERS:
            if reason := self._fault(kind, name, text, far):
                reasons += [reason] if how is not None else []
                continue
            self.slow = f"{reasons[0]}: it draws slowly ({how})" if how else self.stepper.note
            self.drawn = 0
            return kind(self.split, self.device, max_rows, self.routers)
        raise UserError(f"{name} cannot be sampled from ({'; '.join(dict.fromkeys(reasons))}); it is not supported")

    @torch.no_grad()
    def _check_whole(self, name: str, text: tuple[int, ...]) -> None:
        ids = torch.tensor([text], device=self.device)
        check_finite(name, self.split.logits(self.split.hidden(input_ids=ids, use_cache=False).last_hidden_state))

    @torch.no_grad()
    def _fault(self, kind: type[Stepper], name: str, text: tuple[int, ...], far: Reach) -> str:
        """Why a way of decoding is not right, or nothing: prompts of unlike length, some longer than any window, are decoded
        in fewer places than there are rows, from kept beginnings too, and compared with passing them whole."""
        if kind.windows is not None and (unseen := sorted(far.beyond - kind.windows)):
            return f"{name} has a window ({unseen[0]}) that is too long to be proven right with rows of unlike length"
        asked = [(0,), (1, 2, 3), (1, 2, 3, 4), text[:-3], text]
        try:
            self.stepper = kind(self.split, self.device, 3, self.routers)
            drawn = self.run([self.generate(p, n=2, max_tokens=3, key=(i,), keep=True) for i, p in enumerate(asked)])
        except UserError as error:
            return str(error)
        except Exception as error:  # whatever a model raises that takes no such cache
            return f"{name} takes no such cache ({first_line(error, 200)})"
        for prompt, response in ((p, r) for p, both in zip(asked, drawn, strict=True) for r in both):
            ids = torch.tensor([[*prompt, *response.tokens]], device=self.device)
            hidden = self.split.hidden(input_ids=ids, use_cache=False).last_hidden_state[0, len(prompt) - 1 : -1]
            logp = self.split.logits(hidden).float().log_softmax(-1).gather(-1, ids[0, len(prompt) :, None])[:, 0]
            tolerance = 1e-3 if hidden.dtype in (torch.float32, torch.float64) else 0.5
            # "not <=" rather than ">", so that NaN fails too
            if not float((logp.cpu() - torch.tensor(response.logp)).abs().max()) <= tolerance:
                return f"{name} in {hidden.dtype} gives other probabilities step by step than at once"
        return ""

    # Requests --------------------------------------------------------------------------------------------------------

    async def generate(
        self, tokens: Sequence[int], *, n: int = 1, max_tokens: int, temperature: float | Heat = 1.0,
        key: tuple[int, ...], stop: Sequence[Sequence[int]] = (), forced: Sequence[int] = (),
        processor: Processor | None = None, top: int = 0, keep: bool = False, resume: Response | None = None,
        truncation: Truncation | None = None, first: int = 0, until: Callable[[Sequence[int]], bool] | None = None,
    ) -> list[Response]:  # fmt: skip
        """See :class:`~policyopt.sources.program.Sampler`. ``first`` is the number of the first response, where those of one
        request are drawn in several places; ``until`` says after each token whether a response ends by it, in the place of the
        sampler's own ends. Raises ``ValueError`` for a request that cannot be."""
        check_request(tokens, n, resume)
        loop = asyncio.get_running_loop()
        self._forget_other_loops(loop)
        prompt = tuple(map(int, tokens))
        ends: dict[int, list[tuple[int, ...]]] = {}
        for sequence in stop:
            ends.setdefault(sequence[-1], []).append(tuple(sequence))
        request = Request(
            prompt, temperature, ends, tuple(forced), processor, top, keep, truncation or None, loop.create_future(),
            until,
        )  # fmt: skip
        for i in range(first, first + n):
            response = resume or Response([], [], [])
            response.stop_reason = "length"
            response.temperature = 1.0 if callable(temperature) else temperature or 1.0
            end = len(response.tokens) + max_tokens
            row = Row(request, stream_key((*key, i)), response, end, (*prompt, *response.tokens))
            request.rows.append(row)
        if max_tokens < 1:
            return [row.response for row in request.rows]
        request.open = n
        self.stepper.waiting.extend(request.rows)
        self._start(loop)
        return await request.done

    async def logprobs(self, tokens: tuple[int, ...], written: tuple[int, ...], *, temperature: float) -> Response:
        """What the policy thinks of a response that it did not write; what is asked for at the same time is one batch.
        See :class:`~policyopt.sources.program.Sampler`."""
        loop = asyncio.get_running_loop()
        self._forget_other_loops(loop)
        asked = Written(tuple(tokens), tuple(written), temperature, loop.create_future())
        self._written.append(asked)
        self._start(loop)
        return await asked.done

    def embed(self, ids: Tensor) -> Tensor:
        """The input embeddings [..., E] of ids [...], on the CPU."""
        return self.split.embed(ids)

    @property
    def vocab(self) -> int:
        """How many tokens the policy chooses from."""
        return self.split.vocab

    def interrupt(self) -> None:
        """Hand back everything in flight as it stands, at the next token; ``resume`` goes on with it."""
        self._interrupted = self.stepper.busy

    def reread(self) -> None:
        """Read everything in flight anew before its next token, with the weights as they are now; what was drawn stays."""
        rows = self.stepper.rows()
        self._drop_all()
        for row in rows:
            row.context = (*row.request.prompt, *row.response.tokens)
        self.stepper.waiting.extend(rows)

    def run(self, programs: Sequence[Awaitable[X]]) -> list[X]:
        """Run rollout programs to their end, together, and return what each returned, in order.

        Nothing is held from one run to the next: what is drawn depends on the programs alone, to the bit, also in a
        process that has just been resumed.
        """
        return carried_out(programs, self.forget)

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
            while self.stepper.busy or self._written:
                read = self._read_written()
                ended = self._advance()
                for request in ended:
                    if not request.done.done():
                        request.done.set_result([row.response for row in request.rows])
                for _ in range(4 if ended or read else 1):  # who has an answer may ask for more before the next token
                    await asyncio.sleep(0)
        except BaseException as error:
            waiting: list[asyncio.Future[Any]] = [r.done for r in self._drop_all()]
            waiting += [asked.done for asked in self._written]
            self._written.clear()
            hand_over(error, waiting)
            if isinstance(error, asyncio.CancelledError):
                raise
        finally:
            self._worker = None

    @torch.no_grad()
    def _read_written(self) -> bool:
        """Read all that waits for it, rows of like length together. Returns whether there was anything."""
        waiting = sorted(self._written, key=len)
        exact = self.split.hidden.dtype == torch.float64  # type: ignore[attr-defined]
        dtype = torch.float64 if exact else torch.float32
        while waiting:
            rows = max(1, READ_TOKENS // len(waiting[-1]))
            piece, waiting = waiting[-rows:], waiting[:-rows]
            leaves = self.split.leaves(as_batch(piece, dtype, self.device), Wanted(entropy=True))
            self.stepper.computed += sum(map(len, piece))
            for i, asked in enumerate(piece):
                n = len(asked.written)
                logp, entropy = (leaves[name][i, :n].tolist() for name in ("logp", "entropy"))
                read = Response(list(asked.written), logp, entropy, ended(asked.written, self.eos, self.stops))
                read.versions, read.temperature = [self.version] * n, asked.temperature
                if not asked.done.done():
                    asked.done.set_result(read)
        any_read, self._written = bool(self._written), []
        return any_read

    @torch.no_grad()
    def _advance(self) -> list[Request]:
        """One token for every row in flight, or as many as may be drawn before somebody has to look. Returns the requests that
        are complete by them."""
        if self._interrupted:
            return self._cut()
        with span("prefill"):
            self.stepper.admit()
        rows = self.stepper.active
        if not rows:
            return []
        split, device, ahead = self.split, self.device, self.stepper.ahead
        for _ in range(self._draws.begin(rows, self.version, self.eos, split.vocab, device, ahead) - 1):
            token = self._draw()
            with span("decode"):
                self.stepper.step(token, np.zeros(len(rows), dtype=bool))
        token, over = self._draw(), self._draws.look()
        with span("decode"):
            return self.stepper.step(token, over)

    @span("head")
    def _draw(self) -> Tensor:
        """Draw a token for each row. Returns the tokens [B]."""
        hidden = self.stepper.hidden
        assert hidden is not None
        self.drawn += len(hidden)
        return self._draws(self.split.logits(hidden))

    def _cut(self) -> list[Request]:
        self._interrupted = False
        return self._drop_all()

    def _drop_all(self) -> list[Request]:
        """Let go of every row, what it has drawn written into its response. Returns their requests, each once."""
        self._draws.write()
        return self.stepper.drop_all()
