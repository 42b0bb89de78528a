"""What a rollout program sees: a prompt, a sampler, and the responses that it returns."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Protocol

from pydantic import Field

from policyopt.parts.base import Count, Part, part
from policyopt.tasks.base import Verdict


@dataclass(frozen=True)
class Prompt:
    """One question, as tokens."""

    tokens: tuple[int, ...]
    """Ids of the whole context, chat template applied."""
    budget: int
    """How many tokens a response may have."""
    key: tuple[int, ...]
    """What all randomness of this prompt is derived from: (seed, step, prompt)."""
    judge: Judge | None = field(default=None, compare=False)
    """Scores responses while the program runs; see :meth:`score`."""

    async def score(self, responses: Sequence[Response]) -> list[Verdict]:
        """The verdicts on some responses, for programs that decide by them what to draw next.

        What is asked for at the same time is judged together; a response is judged once, its verdict stays with it.
        """
        assert self.judge is not None, "this prompt comes without a judge"
        fresh = [r for r in responses if r.verdict is None]
        for response, verdict in zip(fresh, await self.judge(fresh) if fresh else (), strict=True):
            response.verdict = verdict
        return [r.verdict for r in responses if r.verdict is not None]


@dataclass
class Response:
    """One answer. The three lists have one entry for each token."""

    tokens: list[int]
    logp: list[float]
    """Log-probability of each token at the temperature it was drawn with (at temperature 1 for greedy tokens)."""
    entropy: list[float]
    """Entropy in nats of the distribution that each token was drawn from."""
    finished: bool
    """The response ended with an end token, inside its budget."""
    version: int = 0
    """How many updates the policy that wrote it had seen."""
    role: str = "train"
    """"train", or "baseline" for a response that only provides ``baseline_reward``."""
    source: int = 0
    """Which of the program's ways to draw it came from: 0 the main one, 1 and up auxiliary ones."""
    temperature: float = 1.0
    """What its log-probabilities are taken at."""
    verdict: Verdict | None = None
    """What the judge says of it, once it was asked."""


Judge = Callable[[Sequence[Response]], Awaitable[list[Verdict]]]


class Sampler(Protocol):
    """What rollouts call. Whatever is in flight at once is run as one batch."""

    async def generate(
        self, tokens: tuple[int, ...], *, n: int, max_tokens: int, temperature: float, key: tuple[int, ...]
    ) -> list[Response]:
        """``n`` continuations of ``tokens``; temperature 0 is greedy. The same key gives the same tokens."""
        ...


@part
class Rollout(Part):
    """A program that draws the responses to one prompt."""

    provides: ClassVar[frozenset[str]] = frozenset()
    """Columns that the program fills beyond the responses themselves."""

    size: Count = 8
    """Responses to one prompt that are trained on."""
    temperature: Annotated[float, Field(gt=0, le=10)] = 1.0
    """Sampling temperature; the policy's log-probabilities are taken at it too."""
    rounds: Count = 1
    """How many times prompts are drawn at most to fill a batch that filters have thinned out."""

    async def draw(self, prompt: Prompt, sampler: Sampler) -> list[Response]:
        raise NotImplementedError
