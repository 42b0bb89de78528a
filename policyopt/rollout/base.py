"""What a rollout program sees: a prompt, a sampler, and the responses that it returns."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Protocol

from pydantic import Field
from torch import Tensor

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
    solution: tuple[int, ...] = ()
    """Ids of the worked solution, or of the answer line where the task has none, with an end token."""

    encode: Callable[[str], tuple[int, ...]] | None = field(default=None, compare=False)
    """Ids of a text, without special tokens, for programs that put words into a response."""
    decode: Callable[[Sequence[int]], str] | None = field(default=None, compare=False)
    """The text of ids, for programs that read what was written."""
    earlier: tuple[Response, ...] = field(default=(), compare=False)
    """What the program drew for the prompt at the step before and asked to have back (``Response.later``)."""
    question: str = ""
    """The text of its last message."""
    answer: str = ""
    """The reference answer."""
    frame: Callable[[str], tuple[int, ...]] | None = field(default=None, compare=False)
    """Ids of the context with another text in the place of the question; see :meth:`asked`."""
    room: int = 1 << 30
    """How many tokens a context may have, so that a response of the whole budget fits behind it."""
    tally: dict[str, float] = field(default_factory=dict, compare=False)
    """What the program counts of itself, by name; the log has the sums over prompts."""

    def asked(self, text: str) -> tuple[int, ...] | None:
        """The context in which the policy answers ``text`` in the place of the question, for programs that ask it
        something else; ``None`` where that leaves no room for a response."""
        assert self.frame is not None, "this prompt comes without a tokenizer"
        tokens = self.frame(text)
        return tokens if len(tokens) <= self.room else None

    def count(self, **found: float) -> None:
        """Add to the tally."""
        for name, x in found.items():
            self.tally[name] = self.tally.get(name, 0.0) + x

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
    """One answer. The lists have one entry for each token."""

    tokens: list[int]
    logp: list[float]
    """Log-probability of each token in the distribution that it was drawn from, temperature and processor included (at
    temperature 1 for greedy tokens)."""
    entropy: list[float]
    """Entropy in nats of the distribution that each token was drawn from."""
    finished: bool
    """The response ended with an end token, inside its budget."""
    stopped: bool = False
    """The response ended with one of the stop sequences that were asked for."""
    versions: list[int] = field(default_factory=list)
    """How many updates the policy that wrote each token had seen."""
    heat: list[float] = field(default_factory=list)
    """The temperature that each token was drawn at, where it changes from token to token."""
    top: list[tuple[list[int], list[float]]] = field(default_factory=list)
    """The likeliest tokens at each place with their log-probabilities, where they were asked for."""
    own: list[bool] = field(default_factory=list)
    """Which tokens the policy wrote; empty where it wrote all. The others are read, never trained on."""
    role: str = "train"
    """"train", "baseline" for a response that alone is the baseline of its prompt, "pool" for one that is not trained
    on but counts in it, as those that are trained on do, or "wait" for one that is not even judged yet."""
    later: bool = False
    """The program gets it back at the next step, in ``Prompt.earlier``, to go on with it."""
    new_from: int = 0
    """Index of the first token that was not there at the step before."""
    thought: int = 0
    """Which of its prompt's thoughts it holds, or answers from."""
    cut: int = -1
    """Index of the token before which its thought was cut to force an answer; -1 where it was not."""
    source: int = 0
    """Which of the program's ways to draw it came from: 0 the main one, 1 and up auxiliary ones."""
    temperature: float = 1.0
    """What its log-probabilities are taken at."""
    verdict: Verdict | None = None
    """What the judge says of it, once it was asked."""
    context: tuple[int, ...] = ()
    """What it answers, where that is not the prompt as it was asked: it is trained on in this context."""
    nodes: list[int] = field(default_factory=list)
    """The nodes that it passes in the tree of its prompt's responses, numbered from 1; empty where there is no tree."""
    ends: list[int] = field(default_factory=list)
    """How many of its tokens lie before the end of each node."""
    values: list[float] = field(default_factory=list)
    """Mean reward of fresh continuations from the end of each node, NaN where none were drawn."""

    @property
    def version(self) -> int:
        """How many updates the oldest policy that wrote a part of it had seen."""
        return min(self.versions, default=0)


Judge = Callable[[Sequence[Response]], Awaitable[list[Verdict]]]


Heat = Callable[[Tensor], Tensor]
"""The temperature of the next token, [B], from the logits [B, V] of B responses."""

Processor = Callable[[Tensor, Sequence[Sequence[int]]], Tensor]
"""The logits [B, V] of the next token, changed, given the tokens of each response so far."""


class Sampler(Protocol):
    """What rollouts call. Requests in flight run as one batch that is refilled whenever a row ends."""

    async def generate(
        self, tokens: Sequence[int], *, n: int = 1, max_tokens: int, temperature: float | Heat = 1.0,
        key: tuple[int, ...], stop: Sequence[Sequence[int]] = (), forced: Sequence[int] = (),
        processor: Processor | None = None, top: int = 0, keep: bool = False, resume: Response | None = None,
    ) -> list[Response]:  # fmt: skip
        """``n`` continuations of ``tokens`` by at most ``max_tokens`` tokens.

        Temperature 0 is greedy. The same key gives the same tokens, whatever else is in flight, up to the float noise
        of matrix products of another shape. A response ends at an end token, after one of the ``stop`` sequences, or at
        the budget. Its first tokens are those of ``forced``. ``top`` asks for the likeliest tokens at each place.
        ``keep`` holds what was computed, for later requests that begin with the same tokens. ``resume`` goes on with a
        response that was cut, in place: ``tokens`` is then the prompt that it answers, ``max_tokens`` what it may still
        have.
        """
        ...

    async def score(self, tokens: tuple[int, ...], written: tuple[int, ...], *, temperature: float) -> Response:
        """The continuation ``written`` of ``tokens``, which somebody else wrote, with what the policy thinks of it."""
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
