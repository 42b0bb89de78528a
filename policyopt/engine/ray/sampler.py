"""What rollout programs draw with on the engine ``ray``: requests go to the samplers and are awaited."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from torch import Tensor

from policyopt.engine.programs import carried_out
from policyopt.engine.ray.actors import Request
from policyopt.engine.ray.cluster import need_ray
from policyopt.engine.ray.fleet import Fleet
from policyopt.errors import UserError
from policyopt.sources.program import Heat, Processor, Response
from policyopt.sources.truncation import Truncation

X = TypeVar("X")


class RaySampler:
    """An :class:`~policyopt.engine.protocol.EngineSampler` of a model that the sampler processes hold: the policy, or a
    ``role``. ``begin`` is called before programs run."""

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

    async def generate(
        self, tokens: Sequence[int], *, n: int = 1, max_tokens: int, temperature: float | Heat = 1.0,
        key: tuple[int, ...], stop: Sequence[Sequence[int]] = (), forced: Sequence[int] = (),
        processor: Processor | None = None, top: int = 0, keep: bool = False, resume: Response | None = None,
        truncation: Truncation | None = None,
    ) -> list[Response]:  # fmt: skip
        """See :class:`~policyopt.sources.program.Sampler`. Raises :class:`~policyopt.errors.UserError` for a Python function
        that would have to run inside of the sampler."""
        if processor is not None or callable(temperature):
            raise UserError("a program hands the sampler a Python function, which the engine 'ray' does not send to it: take --engine local")  # fmt: skip
        options: dict[str, Any] = {
            "n": n, "max_tokens": max_tokens, "temperature": temperature, "key": tuple(key), "stop": tuple(map(tuple, stop)),
            "forced": tuple(forced), "top": top, "keep": keep, "resume": resume, "truncation": truncation,
        }  # fmt: skip
        request = Request(self._role, "generate", tuple(map(int, tokens)), options)
        found: list[Response] = await self._fleet.ask(request, key, n * (len(tokens) + max_tokens))
        if resume is not None:  # it is gone on with in place
            vars(resume).update(vars(found[0]))
            return [resume]
        return found

    async def logprobs(self, tokens: tuple[int, ...], written: tuple[int, ...], *, temperature: float) -> Response:
        """See :class:`~policyopt.sources.program.Sampler`."""
        request = Request(
            self._role, "logprobs", tuple(tokens), {"written": tuple(written), "temperature": temperature}
        )
        found: Response = await self._fleet.ask(request, (-1, *tokens[:2]), len(tokens) + len(written))
        return found

    def embed(self, ids: Tensor) -> Tensor:
        """The input embeddings [..., E] of ids [...], on the CPU."""
        found: Tensor = need_ray().get(self._fleet.actors[0].embed.remote(self._role, ids.cpu()))
        return found

    def run(self, programs: Sequence[Awaitable[X]]) -> list[X]:
        """Run rollout programs to their end; see :class:`~policyopt.engine.protocol.EngineSampler`."""
        return carried_out(programs, self._begin)

    def forget(self) -> None:
        """Every run of programs begins with nothing held."""
