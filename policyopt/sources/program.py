"""What a rollout program sees: a prompt, a sampler, and the responses that it returns."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from torch import Tensor

from policyopt.errors import UserError
from policyopt.items import Example, JudgeSpec, Verdict
from policyopt.part import part
from policyopt.sources.source import Source


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
    """Ids of the worked solution with an end token; empty where there is none."""

    encode: Callable[[str], tuple[int, ...]] | None = field(default=None, compare=False)
    """Ids of a text, without special tokens, for programs that put words into a response."""
    decode: Callable[[Sequence[int]], str] | None = field(default=None, compare=False)
    """The text of ids, for programs that read what was written."""
    end: tuple[int, ...] = ()
    """The token that ends a response, for programs that write one themselves."""
    samplers: Mapping[str, Sampler] = field(default_factory=dict, compare=False)
    """Samplers from other models than the policy, by role, for programs that name these among their ``roles``."""
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
    notes: dict[str, Any] = field(default_factory=dict, compare=False)
    """What the programs of a run remember from step to step, together; JSON-able, part of every checkpoint."""
    critic: Valuer | None = field(default=None, compare=False)
    """Values responses while the program runs; see :meth:`value`."""
    history: tuple[float, ...] = ()
    """What the recipe's memory holds of it from earlier steps, NaN where it is new; empty without a memory."""
    given: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Ids of the texts that the task brings for the prompt, each with an end token: "completion", "chosen", "rejected"."""
    breaks: Callable[[], frozenset[int]] | None = field(default=None, compare=False)
    """Ids of the tokens that have a line break in their text; see :meth:`lines`."""

    round: Round = field(default_factory=lambda: Round(), compare=False)
    """The programs that run together, each with a prompt of its own."""

    @property
    def guide(self) -> Sampler | None:
        """Samples from the teacher."""
        return self.samplers.get("teacher")

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

    def lines(self, tokens: Sequence[int]) -> list[int]:
        """After how many of some tokens each line is over; the last one, broken off or not, at their end."""
        assert self.breaks is not None, "this prompt comes without a tokenizer"
        ends, breaks = len(tokens), self.breaks()
        return [i for i, t in enumerate(tokens, 1) if t in breaks and i < ends] + [ends] * (ends > 0)

    def line_ends(self) -> list[tuple[int]]:
        """Stop sequences: every token that ends a line."""
        assert self.breaks is not None, "this prompt comes without a tokenizer"
        return [(token,) for token in sorted(self.breaks())]

    async def value(self, responses: Sequence[Response]) -> list[float]:
        """What the critic expects of the states that responses lead to, for programs that decide by it what to draw next.

        A response that has ended is valued before its end token, at the last state that the critic learns. What is
        asked for at the same time is computed together. Raises :class:`~policyopt.errors.UserError` without a critic.
        """
        if self.critic is None:
            raise UserError("this program asks what responses are worth, but there is no critic: set recipe.critic")
        return await self.critic(responses) if responses else []

    async def score(self, responses: Sequence[Response]) -> list[Verdict]:
        """The verdicts on some responses, for programs that decide by them what to draw next.

        What is asked for at the same time is judged together; a response is judged once, its verdict stays with it.
        Raises :class:`~policyopt.errors.UserError` where nobody may be asked, as on held-out questions.
        """
        if self.judge is None:
            raise UserError("this program asks the judge while it draws, so it cannot stand in recipe.decode")
        fresh = [r for r in responses if r.verdict is None]
        for response, verdict in zip(fresh, await self.judge(fresh) if fresh else (), strict=True):
            response.verdict = verdict
        return [r.verdict for r in responses if r.verdict is not None]


class Round:
    """The programs that run together, for those that share a budget: what each shows, all who take part see.

    A program takes part between ``async with prompt.round:`` and the end of this block. Who leaves is waited for no more.
    """

    def __init__(self) -> None:
        self._members = 0
        self._shown: dict[tuple[int, ...], Any] = {}
        self._done: asyncio.Future[dict[tuple[int, ...], Any]] | None = None

    async def __aenter__(self) -> Round:
        self._members += 1
        await asyncio.sleep(0)  # all that start together are in before the first can meet
        return self

    async def __aexit__(self, *error: object) -> None:
        self._members -= 1
        self._close()

    async def meet(self, key: tuple[int, ...], shown: Any) -> dict[tuple[int, ...], Any]:
        """What everybody has shown, by the keys of their prompts and in their order, once all who take part have."""
        if self._done is None:
            self._done = asyncio.get_running_loop().create_future()
        done, self._shown[key] = self._done, shown
        self._close()
        return await asyncio.shield(done)

    def _close(self) -> None:
        if self._done is not None and self._shown and len(self._shown) >= self._members:
            if not self._done.done():
                self._done.set_result(dict(sorted(self._shown.items())))
            self._shown, self._done = {}, None


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
    guided: list[bool] = field(default_factory=list)
    """Which of its own tokens a guide wrote in the policy's place; empty where there are none. They are scored and valued
    as if the policy had written them, and only the critic learns from them."""
    role: str = "train"
    """"train", "baseline" for a response that alone is the baseline of its prompt, "pool" for one that is not trained
    on but counts in it, as those that are trained on do, or "wait" for one that is not even judged yet."""
    budget: int | None = None
    """How many tokens it was allowed, where the program has set that itself; ``None``: ``Prompt.budget``."""
    later: bool = False
    """The program gets it back at the next step, in ``Prompt.earlier``, to go on with it."""
    new_from: int = 0
    """Index of the first token that was not there at the step before."""
    thought: int = 0
    """Which of its prompt's thoughts it holds, or answers from."""
    cut: int = -1
    """Index of the token before which its thought was cut to force an answer; -1 where it was not."""
    origin: int = 0
    """Which of the program's ways to draw it came from: 0 the main one, 1 and up auxiliary ones."""
    turn: int = 0
    """Number of the environment turn that it is."""
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
    columns: dict[str, float | list[float]] = field(default_factory=dict)
    """What it fills of columns that a program may fill (:func:`policyopt.column` declares one of your own): one number, or
    one for each token."""

    @property
    def version(self) -> int:
        """How many updates the oldest policy that wrote a part of it had seen."""
        return min(self.versions, default=0)


@dataclass(frozen=True)
class Answered:
    """A question with responses to it."""

    example: Example
    prompt: Prompt
    responses: list[Response]


@dataclass(frozen=True)
class Step:
    """A step of a run, for programs that look beyond its prompts."""

    key: tuple[int, ...]
    """(seed, step)."""
    run: str
    """The name of the run: letters and digits that no other run has, the same when it is resumed."""
    judge: JudgeSpec
    """Who judges its responses."""
    ask: Callable[[Example], Prompt | None]
    """The prompt of a question that is none of the run's own; ``None`` where it does not fit into the context. Text that
    spells a special token stays text in what it encodes."""
    notes: dict[str, Any]
    """What the program remembers from step to step, JSON-able; part of every checkpoint."""
    counts: dict[str, float]
    """What the log says of the step, to be filled."""


Judge = Callable[[Sequence[Response]], Awaitable[list[Verdict]]]
Valuer = Callable[[Sequence[Response]], Awaitable[list[float]]]


Heat = Callable[[Tensor], Tensor]
"""The temperature of the next token, [B], from the logits [B, V] of B responses."""

Processor = Callable[[Tensor, Sequence[Sequence[int]]], Tensor]
"""The logits [B, V] of the next token, changed, given the tokens of each response so far."""


class Sampler(Protocol):
    """What rollouts call. Requests in flight run as one batch that is refilled whenever a row ends.

    A program that uses more than ``n``, ``max_tokens``, ``temperature`` and ``key`` of a request names it in its ``asks``.
    """

    async def generate(
        self, tokens: Sequence[int], *, n: int = 1, max_tokens: int, temperature: float | Heat = 1.0,
        key: tuple[int, ...], stop: Sequence[Sequence[int]] = (), forced: Sequence[int] = (),
        processor: Processor | None = None, top: int = 0, keep: bool = False, resume: Response | None = None,
    ) -> list[Response]:  # fmt: skip
        """``n`` continuations of ``tokens`` by at most ``max_tokens`` tokens.

        Temperature 0 is greedy. The same key gives the same tokens, whatever else is in flight, up to the float noise
        of matrix products of another shape. A response ends at an end token, after one of the ``stop`` sequences, or at
        the budget. Its first tokens are those of ``forced``. ``top`` asks for the likeliest tokens at each place.
        ``keep`` is a hint: hold what was computed, for later requests that begin with the same tokens. ``resume`` goes on with a
        response that was cut, in place: ``tokens`` is then the prompt that it answers, ``max_tokens`` what it may still
        have.
        """
        ...

    async def score(self, tokens: tuple[int, ...], written: tuple[int, ...], *, temperature: float) -> Response:
        """The continuation ``written`` of ``tokens``, which somebody else wrote, with what the policy thinks of it."""
        ...

    def embed(self, ids: Tensor) -> Tensor:
        """The input embeddings [..., E] of ids [...], on the CPU."""
        ...

    @property
    def vocab(self) -> int:
        """How many tokens the policy chooses from."""
        ...


@part
class Rollout(Source):
    """A source that draws: a program that has the policy answer one prompt."""

    services: ClassVar[frozenset[str]] = frozenset({"sampler", "judge"})
