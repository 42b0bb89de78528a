"""The sampler that lets vLLM draw: requests become vLLM's, and what it gives is read by this library's own rules."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Protocol, TypeVar

from torch import Tensor

from policyopt.engine.programs import carried_out, check_request, ended
from policyopt.engine.streams import stream_key
from policyopt.engine.vllm.backend import Backend, Drawn, Params
from policyopt.errors import UserError
from policyopt.models.stops import Stops
from policyopt.sources.program import Heat, Processor, Response
from policyopt.sources.truncation import BOUND, WHOLE, Truncation

X = TypeVar("X")

NEVER = -9000.0
"""vLLM's server says -9999 of a token that is never drawn, and where it has no number."""


class Holder(Protocol):
    """Brings weights to a vLLM; :class:`~policyopt.engine.vllm.weights.Weights` is one."""

    @property
    def adapter(self) -> str | None:
        """The name of the adapters to draw with; ``None`` for the model itself."""
        ...

    @property
    def label(self) -> str | None:
        """The name of the weights that a vLLM should have; ``None`` where it does not note them by token."""
        ...

    def bring(self, version: int) -> None:
        """See to it that a vLLM holds the weights as they are now, which are those of a version."""
        ...

    def leave(self) -> None:
        """Nothing more is drawn for now."""
        ...

    def close(self) -> None:
        """Let go of what it holds outside this process."""
        ...


class VllmSampler:
    """An :class:`~policyopt.engine.protocol.EngineSampler` on a vLLM.

    Tokens go in and come out, so that nothing is ever encoded again. Log-probabilities are those of the distribution that
    was drawn from. Each response is a request with a seed of its own, which follows from the key. Where a response ends is
    decided here: what vLLM is told of stops only makes it end early enough, and what it drew beyond is dropped.

    ``masked`` says that vLLM gives the tokens that each token was drawn from; then every draw is from the 1024 likeliest
    at most, as vLLM demands a bound. ``embed`` gives input embeddings. New weights are brought when somebody next draws.
    """

    slow = ""

    def __init__(
        self, backend: Backend, weights: Holder, *, eos: Sequence[int], stops: Stops | None, vocab: int,
        embed: Callable[[Tensor], Tensor], masked: bool = False,
    ) -> None:  # fmt: skip
        self.backend, self.weights, self.masked = backend, weights, masked
        self.eos, self.stops, self.vocab, self.embed = frozenset(eos), stops, vocab, embed
        self.version = self.computed = self.drawn = 0

    # Requests ----------------------------------------------------------------------------------------------------------

    async def generate(
        self, tokens: Sequence[int], *, n: int = 1, max_tokens: int, temperature: float | Heat = 1.0,
        key: tuple[int, ...], stop: Sequence[Sequence[int]] = (), forced: Sequence[int] = (),
        processor: Processor | None = None, top: int = 0, keep: bool = False, resume: Response | None = None,
        truncation: Truncation | None = None,
    ) -> list[Response]:  # fmt: skip
        """See :class:`~policyopt.sources.program.Sampler`. Raises ``ValueError`` for a request that cannot be, and
        :class:`~policyopt.errors.UserError` for one that vLLM cannot serve."""
        check_request(tokens, n, resume)
        if processor is not None or callable(temperature):
            raise UserError(
                "vLLM takes no Python function that changes logits or makes the temperature from them: take --sampler own"
            )
        if forced and (temperature != 1 or truncation or self.masked):
            raise UserError("vLLM scores given tokens at temperature 1 over all tokens alone: take --sampler own")
        prompt, ends = tuple(map(int, tokens)), {tuple(s) for s in stop}
        asked = self._params(float(temperature), truncation or WHOLE, top, ends)

        async def one(i: int) -> Response:
            response = resume or Response([], [], [])
            response.stop_reason, response.temperature = "length", float(temperature) or 1.0
            end = len(response.tokens) + max_tokens
            await self._force(prompt, response, forced[len(response.tokens) : end], ends)
            while response.stop_reason == "length" and len(response.tokens) < end:
                at = len(response.tokens)
                seed = stream_key((*key, i, at) if at else (*key, i)) >> 1  # vLLM takes 63 bits
                drawn = await self._draw((*prompt, *response.tokens), asked | {"max_tokens": end - at, "seed": seed})
                if not 0 < len(drawn.tokens) <= end - at:
                    raise self._odd(f"{len(drawn.tokens)} tokens came where 1 to {end - at} were asked for")
                if temperature == 0 and self.masked:  # as of one token, its probability is 1
                    drawn.logp = await self._score((*prompt, *response.tokens), drawn.tokens)
                self._note(response, drawn, ends)
            return response

        return list(await asyncio.gather(*map(one, range(n))))

    def _params(
        self, temperature: float, truncation: Truncation, top: int, ends: Collection[tuple[int, ...]]
    ) -> Params:
        """What all requests for a response say."""
        texts = list(self.stops.texts) if self.stops is not None else []
        asked: Params = {
            "temperature": temperature, "ignore_eos": True,
            "logprobs": top + 1 if top else 0,  # the server counts the token that was drawn as one of them
            "stop_token_ids": sorted(self.eos | {s[-1] for s in ends}), "detokenize": bool(texts),
        }  # fmt: skip
        if texts:
            asked |= {"stop": texts, "include_stop_str_in_output": True, "skip_special_tokens": False}
        if truncation and temperature:
            k = truncation.top_k or (BOUND if self.masked else 0)
            asked |= {"top_p": truncation.top_p, "top_k": k, "min_p": truncation.min_p}
        elif self.masked:
            asked |= {"top_k": BOUND if temperature else 1, "temperature": temperature or 1.0}
        return asked

    async def logprobs(self, tokens: tuple[int, ...], written: tuple[int, ...], *, temperature: float) -> Response:
        """See :class:`~policyopt.sources.program.Sampler`; vLLM gives no entropies, so these are NaN. Raises
        :class:`~policyopt.errors.UserError` for another temperature than 1."""
        if temperature != 1:
            raise UserError("vLLM scores given tokens at temperature 1 alone: take --sampler own")
        response = Response(list(written), await self._score(tokens, written), [math.nan] * len(written))
        response.stop_reason = ended(written, self.eos, self.stops)
        response.versions = [self.version] * len(written)
        return response

    async def _score(self, tokens: Sequence[int], written: Sequence[int]) -> list[float]:
        asked: Params = {"max_tokens": 1, "temperature": 1.0, "top_k": 1, "logprobs": 0, "prompt_logprobs": 0}
        drawn = await self._draw((*tokens, *written), asked | {"detokenize": False, "ignore_eos": True})
        if len(drawn.prompt) != len(tokens) + len(written) - 1:
            raise self._odd(f"{len(drawn.prompt)} log-probabilities came for {len(tokens) + len(written)} given tokens")
        return drawn.prompt[len(tokens) - 1 :]

    async def _force(
        self, prompt: tuple[int, ...], response: Response, forced: Sequence[int], ends: Collection[tuple[int, ...]]
    ) -> None:
        """Let a response go on with given tokens, up to where it ends by them."""
        if forced:
            logp = await self._score((*prompt, *response.tokens), forced)
            self._note(response, Drawn(list(forced), logp, top=[([], [])] * len(forced)), ends)

    async def _draw(self, tokens: Sequence[int], params: Params) -> Drawn:
        drawn = await self.backend.draw(tokens, params, self.weights.adapter)
        n = len(drawn.tokens)
        wrong = [len(x) for x in (drawn.logp, drawn.masks, drawn.versions) if x is not None and len(x) != n]
        if wrong or (params.get("logprobs") and len(drawn.top) != n):
            raise self._odd(f"{n} tokens came with {wrong[0] if wrong else len(drawn.top)} numbers of another kind")
        if not all(x > NEVER for x in drawn.logp):  # NaN fails too
            raise self._odd(
                f"a token came with the log-probability {min(drawn.logp)}: its weights or its numbers are broken"
            )
        if drawn.masks is None and self.masked:
            raise self._odd("it does not say which tokens it drew from; start it with --return-sampling-mask")
        if self.weights.label is not None and (other := {*(drawn.versions or ())} - {self.weights.label}):
            raise UserError(
                f"{self.backend.name} drew with the weights {min(other)!r}, and those of this run are {self.weights.label!r}: "
                "somebody else has given it weights, or it was started anew. Go on with --resume and the folder of the run"
            )
        self.computed += len(tokens) - drawn.cached + n
        return drawn

    def _odd(self, what: str) -> UserError:
        return UserError(f"{self.backend.name}: {what}")

    def _note(self, response: Response, drawn: Drawn, ends: Collection[tuple[int, ...]]) -> None:
        """Write tokens down, up to the one by which the response ends."""
        for i, token in enumerate(drawn.tokens):
            mask = sorted(drawn.masks[i]) if drawn.masks is not None else ()
            if len(mask) not in (0, self.vocab):
                response.support += [()] * (len(response.tokens) - len(response.support))
                response.support.append(mask)
            if drawn.top:
                ids, logp = drawn.top[i]
                likely = [(t, x) for t, x in zip(ids, logp, strict=True) if x > NEVER]
                response.top.append(([t for t, _ in likely], [x for _, x in likely]))
            response.tokens.append(token)
            response.logp.append(drawn.logp[i])
            response.entropy.append(math.nan)
            response.versions.append(self.version)
            self.drawn += 1
            response.stop_reason = ended(response.tokens, self.eos, self.stops, ends)
            if response.stop_reason != "length":
                return

    # Programs ----------------------------------------------------------------------------------------------------------

    def run(self, programs: Sequence[Awaitable[X]]) -> list[X]:
        """See :class:`~policyopt.engine.protocol.EngineSampler`; newer weights are brought first."""
        found = carried_out(programs, lambda: self.weights.bring(self.version), self.backend.session)
        self.weights.leave()
        return found

    def score(self, tokens: Sequence[int], written: Sequence[int]) -> list[float]:
        """Log-probabilities of given tokens behind others, at temperature 1, from the weights that vLLM has."""
        return carried_out([self._score(tokens, written)], within=self.backend.session)[0]

    def forget(self) -> None:
        """vLLM keeps beginnings of texts by itself, and forgets them when the weights change."""

    def close(self) -> None:
        """Let go of vLLM."""
        self.weights.close()
        self.backend.close()
