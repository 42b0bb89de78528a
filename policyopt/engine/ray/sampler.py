"""What rollout programs draw with on the engine ``ray``: requests go to the samplers and are awaited."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from torch import Tensor

from policyopt.engine.programs import carried_out
from policyopt.engine.ray.cluster import need_ray
from policyopt.engine.ray.fleet import Fleet
from policyopt.engine.sent import Asked, SentSampler
from policyopt.errors import UserError
from policyopt.sources.program import Response

X = TypeVar("X")


class RaySampler(SentSampler):
    """An :class:`~policyopt.engine.protocol.EngineSampler` of a model that the sampler processes hold: the policy, or a
    ``role``. ``begin`` is called before programs run. Raises :class:`~policyopt.errors.UserError` for a Python function that
    would have to run inside of the sampler."""

    def __init__(self, fleet: Fleet, role: str, slow: str, vocab: int, begin: Callable[[], None]) -> None:
        self._fleet, self._role, self._begin = fleet, role, begin
        self.slow, self.vocab = slow, vocab

    @property
    def computed(self) -> int:
        """Tokens that went through the model so far."""
        return self._fleet.computed[self._role]

    @property
    def drawn(self) -> int:
        """Tokens that were drawn so far."""
        return self._fleet.drawn[self._role]

    async def _answered(self, asked: Asked) -> list[Response]:
        if asked.options.get("processor") is not None or callable(asked.options["temperature"]):
            raise UserError("a program hands the sampler a Python function, which the engine 'ray' does not send to it: take --engine local")  # fmt: skip
        return await self._fleet.ask(self._role, asked)

    def embed(self, ids: Tensor) -> Tensor:
        """The input embeddings [..., E] of ids [...], on the CPU."""
        found: Tensor = need_ray().get(self._fleet.actors[0].embed.remote(self._role, ids.cpu()))
        return found

    def run(self, programs: Sequence[Awaitable[X]]) -> list[X]:
        """Run rollout programs to their end; see :class:`~policyopt.engine.protocol.EngineSampler`."""
        return carried_out(programs, self._begin)

    def forget(self) -> None:
        """Every run of programs begins with nothing held."""
