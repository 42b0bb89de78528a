"""Drawing on all ranks: what programs wait for at the same time is dealt out, and each rank draws its share alone."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Sequence
from typing import TypeVar

from torch import Tensor

from policyopt.engine.programs import carried_out, hand_over
from policyopt.engine.sent import Asked, SentSampler
from policyopt.engine.sharded.crew import Crew
from policyopt.sources.program import Response

X = TypeVar("X")


@dataclasses.dataclass(frozen=True)
class _Waiting:
    """A request whose responses programs wait for."""

    asked: Asked
    done: asyncio.Future[list[Response]]

    def parts(self, most: int) -> list[Asked]:
        """The request in at most so many parts, which may be answered in different places."""
        own = self.asked.options
        n: int = own.get("n", 1)
        if n == 1:
            return [self.asked]
        size = -(-n // most)
        return [
            dataclasses.replace(self.asked, options={**own, "n": min(size, n - i), "first": i})
            for i in range(0, n, size)
        ]


class DealtSampler(SentSampler):
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

    def embed(self, ids: Tensor) -> Tensor:
        """The input embeddings [..., E] of ids [...], on the CPU."""
        found: Tensor = self._crew.call("embed", self._role, ids.cpu())[0]
        return found

    async def _answered(self, asked: Asked) -> list[Response]:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[list[Response]] = loop.create_future()
        if not self._waiting:  # after every program that is ready now has had its turn to ask
            loop.call_soon(loop.call_soon, loop.call_soon, self._wave)
        self._waiting.append(_Waiting(asked, done))
        return await done

    def _wave(self) -> None:
        """Have all that is waited for drawn."""
        wave, self._waiting = [w for w in self._waiting if not w.done.done()], []
        if not wave:
            return
        # Responses to one prompt stay together, where it is read once, unless ranks would then have nothing to do.
        parts = [(i, part) for i, w in enumerate(wave) for part in w.parts(-(-2 * self._crew.size // len(wave)))]
        dealt: list[list[int]] = [[] for _ in range(self._crew.size)]
        load = [0] * self._crew.size
        for at in sorted(range(len(parts)), key=lambda at: -parts[at][1].size):
            least = load.index(min(load))
            dealt[least].append(at)
            load[least] += parts[at][1].size
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
