"""Draws from a model on a server."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from torch import Tensor

from policyopt.engine.programs import carried_out, check_request, ended
from policyopt.engine.streams import stream_key
from policyopt.engine.tinker.link import Link
from policyopt.errors import UserError
from policyopt.models.text import Text
from policyopt.sources.program import Heat, Processor, Response
from policyopt.sources.truncation import Truncation

X = TypeVar("X")
Stop = Sequence[Sequence[int]]

SEEDS = 2**31 - 1
"""Servers add the number of a response to the seed of its request, and hold it in 32 bits."""


class RemoteSampler:
    """Samples from a model on a server; ``client`` gives the SDK's sampling client and the version of its weights.

    A response ends at an end token or a single stop token on the server. Stop sequences of several tokens and stop texts are found
    here: what was drawn behind one is cut off, which leaves what was drawn before as it was. Entropies are NaN: the protocol has none.
    """

    slow = ""

    def __init__(self, link: Link, text: Text, vocab: int, client: Callable[[], tuple[Any, int]]) -> None:
        self._link, self._text, self._vocab, self._client = link, text, vocab, client
        self.computed = 0
        """Tokens of prompts and responses that were sent or drawn so far."""
        self.drawn = 0
        """Tokens that were drawn so far."""

    async def generate(
        self, tokens: Sequence[int], *, n: int = 1, max_tokens: int, temperature: float | Heat = 1.0,
        key: tuple[int, ...], stop: Stop = (), forced: Sequence[int] = (),
        processor: Processor | None = None, top: int = 0, keep: bool = False, resume: Response | None = None,
        truncation: Truncation | None = None,
    ) -> list[Response]:  # fmt: skip
        """See :class:`~policyopt.sources.program.Sampler`. Raises ``ValueError`` for a request that cannot be, and for what this
        engine does not declare."""
        check_request(tokens, n, resume)
        if callable(temperature) or processor is not None or top or (truncation is not None and truncation.min_p):
            raise ValueError("a Tinker server takes no functions of logits, tells no alternatives, and has no min_p")
        responses = [resume or Response([], [], []) for _ in range(n)]
        end = len(responses[0].tokens) + max_tokens
        for response in responses:
            response.stop_reason, response.temperature = "length", temperature or 1.0
        begun = list(forced)[len(responses[0].tokens) : end]
        if begun:
            read = await self._read([*tokens, *responses[0].tokens], begun)
            for response in responses:
                self._add(response, begun, read, stop)
        first = responses[0]
        if first.stop_reason != "length" or len(first.tokens) >= end:
            return responses
        await self._draw(list(tokens), responses, end - len(first.tokens), temperature, key, stop, truncation)
        return responses

    async def _draw(
        self, asked: list[int], responses: list[Response], most: int, temperature: float, key: tuple[int, ...], stop: Stop,
        truncation: Truncation | None,
    ) -> None:  # fmt: skip
        """Go on with responses that begin with the same tokens."""
        n, begun, types = len(responses), responses[0].tokens, self._link.sdk.types
        prompt = [*asked, *begun]
        ends = sorted({*self._text.eos, *(s[0] for s in stop if len(s) == 1)})
        seed = stream_key((*key, len(begun)) if begun else key) % (SEEDS - n)
        cut = {} if truncation is None else {"top_p": truncation.top_p, "top_k": truncation.top_k or -1}
        params = types.SamplingParams(max_tokens=most, seed=seed, stop=ends, temperature=temperature, **cut)
        client, _ = self._client()
        text = types.ModelInput.from_ints(prompt)
        answer = await self._link.acall("draw a response", lambda: client.sample(text, n, params))
        self.computed += len(prompt)
        for response, found in zip(responses, answer.sequences, strict=True):
            drawn, logp = list(map(int, found.tokens)), found.logprobs
            if logp is None or len(logp) != len(drawn):
                raise UserError(
                    f"{self._link.url}: the server tells no log-probabilities of what it draws, and nothing can be learned"
                )
            if found.stop_reason == "stop" and (not drawn or drawn[-1] not in ends):
                raise UserError(
                    f"{self._link.url}: the server leaves out the token that a response ends with, so that its log-probability is not known"
                )
            self._add(response, drawn, list(map(float, logp)), stop)
            self.drawn += len(drawn)
            self.computed += len(drawn)

    def _add(self, response: Response, tokens: Sequence[int], logp: Sequence[float], stop: Stop) -> None:
        """Write tokens down, up to where the response ends."""
        _, version = self._client()
        for token, lp in zip(tokens, logp, strict=True):
            response.tokens.append(token)
            response.logp.append(lp)
            response.entropy.append(math.nan)
            response.versions.append(version)
            response.stop_reason = ended(response.tokens, self._text.eos, self._text.stops, stop)
            if response.stop_reason != "length":
                return

    async def logprobs(self, tokens: tuple[int, ...], written: tuple[int, ...], *, temperature: float) -> Response:
        """The continuation ``written`` of ``tokens`` with its log-probabilities; its entropies are NaN."""
        if temperature != 1:
            raise ValueError(f"a Tinker server scores at temperature 1, not {temperature}")
        read = Response(list(written), await self._read(tokens, written), [math.nan] * len(written))
        read.stop_reason = ended(written, self._text.eos, self._text.stops)
        read.versions = [self._client()[1]] * len(written)
        return read

    async def _read(self, tokens: Sequence[int], written: Sequence[int]) -> list[float]:
        """The log-probability of each token of a continuation."""
        client, _ = self._client()
        text = self._link.sdk.types.ModelInput.from_ints([*tokens, *written])
        found = await self._link.acall("score a text", lambda: client.compute_logprobs(text))
        self.computed += len(tokens) + len(written)
        return [float(x) for x in found[-len(written) :]]  # servers differ in whether the first token has an entry

    def score(self, texts: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[list[float]]:
        """The log-probabilities of continuations, given with what they continue."""
        return self.run([self._read(*text) for text in texts])

    def embed(self, ids: Tensor) -> Tensor:
        """Not to be had. Raises ``ValueError``."""
        raise ValueError("a Tinker server tells no embeddings")

    @property
    def vocab(self) -> int:
        """How many tokens the model chooses from."""
        return self._vocab

    def run(self, programs: Sequence[Awaitable[X]]) -> list[X]:
        """Run rollout programs to their end, together, and return what each returned, in order; weights are published before any
        program waits for them."""
        return carried_out(programs, self._client)

    def forget(self) -> None:
        """There is nothing held here."""
