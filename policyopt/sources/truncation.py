"""Drawing from the likeliest tokens alone, and the record of which they were."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, cast

from pydantic import Field
from torch import Tensor

if TYPE_CHECKING:
    from policyopt.sources.program import Response

S = TypeVar("S")

BOUND = 1024
"""Most tokens that a truncated draw chooses from, so that a record of them stays small."""

TopP = Annotated[float, Field(gt=0, le=1)]
TopK = Annotated[int, Field(ge=1, le=BOUND)]
MinP = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class Truncation:
    r"""Which tokens may be drawn, given their probabilities p after the temperature.

    .. math:: p_v \ge m \max p;\qquad \text{then the } k \text{ likeliest};\qquad
              \text{then the fewest likeliest whose mass is at least } P

    Each is taken over what the one before has left, normalised anew, in the order of vLLM; at most the 1024 likeliest are
    left in any case. What is drawn has the probability :math:`p_v / \sum_{u \in S} p_u` in the set S that is left.
    """

    top_p: float = 1.0
    """P; 1 leaves all."""
    top_k: int | None = None
    """k; ``None`` leaves all."""
    min_p: float = 0.0
    """m; 0 leaves all."""

    def __bool__(self) -> bool:
        """Whether it leaves any token out."""
        return self.top_p < 1 or self.top_k is not None or self.min_p > 0


WHOLE = Truncation()
"""None at all."""


def left(p: Tensor, min_p: Tensor, top_k: Tensor, top_p: Tensor) -> Tensor:
    """[R, K] which of the K likeliest tokens of each row may be drawn, given their probabilities [R, K] in falling order;
    the bounds are [R] each."""
    stays = p >= min_p[:, None] * p[:, :1]
    stays &= stays.cumsum(-1) <= top_k[:, None]
    narrowed = (min_p > 0) | (top_k <= BOUND)
    some = p.where(stays, 0.0)
    mass = some.sum(-1, keepdim=True).where(narrowed[:, None], 1.0)
    return stays & ((some.cumsum(-1) - some < top_p[:, None] * mass) | (top_p >= 1)[:, None])


def truncated(sampler: S, truncation: Truncation) -> S:
    """A sampler whose every draw is truncated; what somebody else wrote it scores over the whole vocabulary."""
    return cast(S, _Truncated(sampler, truncation)) if truncation else sampler


@dataclass(frozen=True)
class _Truncated:
    sampler: Any
    truncation: Truncation

    async def generate(self, tokens: Sequence[int], **how: Any) -> list[Response]:
        """See :class:`~policyopt.sources.program.Sampler`."""
        drawn: list[Response] = await self.sampler.generate(tokens, **{"truncation": self.truncation, **how})
        return drawn

    async def logprobs(self, tokens: tuple[int, ...], written: tuple[int, ...], *, temperature: float) -> Response:
        """See :class:`~policyopt.sources.program.Sampler`."""
        scored: Response = await self.sampler.logprobs(tokens, written, temperature=temperature)
        return scored

    def embed(self, ids: Tensor) -> Tensor:
        """See :class:`~policyopt.sources.program.Sampler`."""
        vectors: Tensor = self.sampler.embed(ids)
        return vectors

    @property
    def vocab(self) -> int:
        """See :class:`~policyopt.sources.program.Sampler`."""
        return int(self.sampler.vocab)
