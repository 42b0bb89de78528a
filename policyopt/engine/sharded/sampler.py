"""Drawing on all ranks: what programs wait for at the same time is dealt out, and each rank draws its share alone."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Sequence
from typing import Any, TypeVar

from torch import Tensor

from policyopt.engine.programs import carried_out, check_request, hand_over
from policyopt.engine.sharded.crew import Crew
from policyopt.engine.sharded.share import Asked
from policyopt.sources.program import Heat, Processor, Response
from policyopt.sources.truncation import Truncation

X = TypeVar("X")


@dataclasses.dataclass(frozen=True)
class _Waiting:
    """A request whose responses programs wait for."""

    asked: Asked
    done: asyncio.Future[list[Response]]
    n: int = 1

    def parts(self, most: int) -> list[Asked]:
        """The request in at most so many parts, which may be answered in different places."""
        size = -(-self.n // most)
        starts = range(0, self.n, size)
        own = self.asked.options
        return (
            [dataclasses.replace(self.asked, options={**own, "n": min(size, self.n - i), "first": i}) for i in starts]
            if self.n > 1
            else [self.asked]
        )


def _tokens(asked: Asked) -> int:
    """How many tokens a request may take, those that are read included."""
    more = len(asked.written) if asked.written is not None else asked.options["n"] * asked.options["max_tokens"]
    return int(len(asked.tokens) + more)


class DealtSampler:
    """An :class:`~policyopt.engine.protocol.EngineSampler` over a crew: the policy's, or that of a ``role``.

    Requests go out in waves: as soon as every program waits, all that they wait for is spread over the ranks, and once all of it
    is there the programs go on. The random numbers of a response follow from its key, so that it is the same on whatever
    rank it is drawn, up to float noise.
    """

    def __init__(self, crew: Crew, vocab: int, role: str | None = None) -> None:
        self._crew, self._role, self.vocab = crew, role, vocab
        self.computed = self.drawn = 0
        self._waiting: list[_Waiting] = []
        self.slow: str = crew.call("sampler", role)[0]

    def run(self, programs: Sequence[Awaitable[X]]) -> list[X]:
        """See :class:`~policyopt.engine.protocol.EngineSampler`."""
        self._waiting.clear()
        return carried_out(programs, self.forget)

    def forget(self) -> None:
        """Let go of what is held for later requests."""
        self._crew.call("forget", self._role)

    async def generate(
        self, tokens: Sequence[int], *, n: int = 1, max_tokens: int, temperature: float | Heat = 1.0,
        key: tuple[int, ...], stop: Sequence[Sequence[int]] = (), forced: Sequence[int] = (),
        processor: Processor | None = None, top: int = 0, keep: bool = False, resume: Response | None = None,
        truncation: Truncation | None = None,
    ) -> list[Response]:  # fmt: skip
        """See :class:`~policyopt.sources.program.Sampler`. Raises ``ValueError`` for a request that cannot be."""
        check_request(tokens, n, resume)
        options: dict[str, Any] = {
            "n": n, "max_tokens": max_tokens, "temperature": temperature, "key": key, "stop": stop, "forced": forced,
            "processor": processor, "top": top, "keep": keep, "resume": resume, "truncation": truncation,
        }  # fmt: skip
        drawn = await self._ask(Asked(tuple(map(int, tokens)), options), n)
        if resume is None:
            return drawn
        resume.__dict__.update(drawn[0].__dict__)  # it is gone on with in place
        return [resume]

    async def logprobs(self, tokens: tuple[int, ...], written: tuple[int, ...], *, temperature: float) -> Response:
        """See :class:`~policyopt.sources.program.Sampler`."""
        asked = Asked(tuple(tokens), {"temperature": temperature}, tuple(written))
        return (await self._ask(asked))[0]

    def embed(self, ids: Tensor) -> Tensor:
        """The input embeddings [..., E] of ids [...], on the CPU."""
        found: Tensor = self._crew.call("embed", self._role, ids.cpu())[0]
        return found

    def _ask(self, asked: Asked, n: int = 1) -> asyncio.Future[list[Response]]:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[list[Response]] = loop.create_future()
        if not self._waiting:  # after every program that is ready now has had its turn to ask
            loop.call_soon(loop.call_soon, loop.call_soon, self._wave)
        self._waiting.append(_Waiting(asked, done, n))
        return done

    def _wave(self) -> None:
        """Have all that is waited for drawn."""
        wave, self._waiting = [w for w in self._waiting if not w.done.done()], []
        if not wave:
            return
        # Responses to one prompt stay together, where it is read once, unless ranks would then have nothing to do.
        parts = [(i, part) for i, w in enumerate(wave) for part in w.parts(-(-2 * self._crew.size // len(wave)))]
        dealt: list[list[int]] = [[] for _ in range(self._crew.size)]
        load = [0] * self._crew.size
        for at in sorted(range(len(parts)), key=lambda at: -_tokens(parts[at][1])):
            least = load.index(min(load))
            dealt[least].append(at)
            load[least] += _tokens(parts[at][1])
        try:
            found = self._crew.call("draw", self._role, [[parts[at][1] for at in share] for share in dealt])
        except BaseException as error:
            hand_over(error, [waiting.done for waiting in wave])
            return
        answers: dict[int, list[Response]] = {}
        for share, (responses, computed, drawn) in zip(dealt, found, strict=True):
            self.computed += computed
            self.drawn += drawn
            answers |= dict(zip(share, responses, strict=True))
        for i, waiting in enumerate(wave):
            waiting.done.set_result([r for at, (whose, _) in enumerate(parts) if whose == i for r in answers[at]])
