"""Requests that are answered by local samplers in other processes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from policyopt.engine.programs import check_request
from policyopt.sources.program import Heat, Processor, Response, Sampler
from policyopt.sources.truncation import Truncation


@dataclass(frozen=True)
class Asked:
    """A request for responses, or where ``written`` stands, for what is thought of a text."""

    tokens: tuple[int, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of :meth:`~policyopt.sources.program.Sampler.generate`, or of its ``logprobs``."""
    written: tuple[int, ...] | None = None

    @property
    def size(self) -> int:
        """How many tokens it may take, those that are read included."""
        more = len(self.written) if self.written is not None else self.options["n"] * self.options["max_tokens"]
        return len(self.tokens) + int(more)

    async def answered(self, sampler: Sampler) -> list[Response]:
        """What a sampler answers."""
        if self.written is not None:
            return [await sampler.logprobs(self.tokens, self.written, **self.options)]
        return await sampler.generate(self.tokens, **self.options)


class SentSampler(ABC):
    """A sampler whose requests go somewhere else; the responses come back as copies."""

    @abstractmethod
    async def _answered(self, asked: Asked) -> list[Response]:
        """The responses to a request."""

    async def generate(
        self, tokens: Sequence[int], *, n: int = 1, max_tokens: int, temperature: float | Heat = 1.0,
        key: tuple[int, ...], stop: Sequence[Sequence[int]] = (), forced: Sequence[int] = (),
        processor: Processor | None = None, top: int = 0, keep: bool = False, resume: Response | None = None,
        truncation: Truncation | None = None,
    ) -> list[Response]:  # fmt: skip
        """See :class:`~policyopt.sources.program.Sampler`. Raises ``ValueError`` for a request that cannot be."""
        check_request(tokens, n, resume)
        options: dict[str, Any] = {
            "n": n, "max_tokens": max_tokens, "temperature": temperature, "key": tuple(key), "stop": stop, "forced": forced,
            "processor": processor, "top": top, "keep": keep, "resume": resume, "truncation": truncation,
        }  # fmt: skip
        drawn = await self._answered(Asked(tuple(map(int, tokens)), options))
        if resume is None:
            return drawn
        vars(resume).update(vars(drawn[0]))  # it is gone on with in place
        return [resume]

    async def logprobs(self, tokens: tuple[int, ...], written: tuple[int, ...], *, temperature: float) -> Response:
        """See :class:`~policyopt.sources.program.Sampler`."""
        return (await self._answered(Asked(tuple(tokens), {"temperature": temperature}, tuple(written))))[0]
