"""What a rollout program sees: a question, the context that serves it, and the responses that it returns."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

from torch import Tensor

from policyopt.errors import UserError
from policyopt.items import Example, JudgeSpec, Message, Verdict, preferred
from policyopt.part import part
from policyopt.sources.desk import Begun, Desk
from policyopt.sources.response import Response as Response
from policyopt.sources.response import StopReason as StopReason
from policyopt.sources.response import Use as Use
from policyopt.sources.round import Round as Round
from policyopt.sources.source import Source
from policyopt.sources.truncation import MinP, TopK, TopP, Truncation


@dataclass(frozen=True)
class Question:
    """What a program answers: data alone."""

    tokens: tuple[int, ...]
    """Ids of the whole prompt, chat template applied."""
    budget: int
    """How many tokens a response may have."""
    key: tuple[int, ...]
    """What all randomness of the question is derived from: (seed, step, prompt)."""
    worked: tuple[int, ...] | None = ()
    """Ids of the worked solution; None where the program does not declare that it reads it. See :attr:`solution`."""
    text: str = ""
    """The text of its last message."""
    answer: str = ""
    """The reference answer."""
    earlier: tuple[Response, ...] = ()
    """What the program drew at the step before and asked to have back (``Response.later``)."""
    history: tuple[float, ...] = ()
    """What the recipe's memory holds of it from earlier steps, NaN where it is new; empty without a memory."""
    given: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Ids of the texts that the task brings for it and the source reads, each with an end token: "completion", "chosen",
    "rejected", "labelled"."""
    label: bool = False
    """Whether somebody called the text ``given["labelled"]`` good."""
    scored: tuple[tuple[tuple[int, ...], float], ...] = ()
    """Ids of the responses that the task brings for it, each with an end token and its score, where the source reads them."""
    numbers: Mapping[str, float] = field(default_factory=dict)
    """Numbers that the task brings for it, by the names of their columns: ``{"chosen_score": 8.5}``."""
    name: str = ""
    """What it is called in its task, the same whenever it comes again; programs that remember questions know them by it."""

    @property
    def solution(self) -> tuple[int, ...]:
        """Ids of the worked solution with an end token; empty where there is none.

        Raises :class:`~policyopt.errors.UserError` in a program that does not declare "solutions" among its ``uses``.
        """
        if self.worked is None:
            raise undeclared("the program", "solutions")
        return self.worked


SERVICES: Mapping[str, str] = {
    "judge": "verdicts while it draws (`context.judge`)",
    "critic": "values of responses while it draws (`context.values`)",
    "solutions": "the worked solutions of the dataset (`question.solution`)",
    "sampler_of[NAME]": "responses of another model than the policy (`context.sampler_of`)",
}
"""What a program may declare among its ``uses``; NAME is a role."""


def undeclared(who: str, service: str) -> UserError:
    """The error of a program that asks for a service that it does not declare."""
    return UserError(f"{who} asks for {service!r}, which it does not declare: add {service!r} to its `uses`")


def _no_text(*_: object) -> Any:
    raise UserError("this context comes without a tokenizer: give it encode, decode, frame and breaks")


@dataclass(frozen=True)
class Context:
    """What a program may call while it answers one question."""

    sampler: Sampler
    """Draws from the policy."""
    program: Source | None = None
    """Who is served. It finds the services that it declares; None finds all that are there."""
    verdicts: Verdicts | None = None
    """Judges responses; see :meth:`judge`."""
    critic: Values | None = None
    """Values responses; see :meth:`values`."""
    samplers: Mapping[str, Sampler] = field(default_factory=dict)
    """Draw from other models, by role; see :meth:`sampler_of`."""

    encode: Callable[[str], tuple[int, ...]] = _no_text
    """Ids of a text, without special tokens, for programs that put words into a response."""
    decode: Callable[[Sequence[int]], str] = _no_text
    """The text of ids, for programs that read what was written."""
    end: tuple[int, ...] = ()
    """The token that ends a response, for programs that write one themselves."""
    frame: Callable[[str], tuple[int, ...]] = _no_text
    """Ids of the prompt with another text in the place of the question; see :meth:`asked`."""
    breaks: Callable[[], frozenset[int]] = _no_text
    """Ids of the tokens that have a line break in their text; see :meth:`lines`."""
    room: int = 1 << 30
    """How many tokens a prompt may have, so that a response of the whole budget fits behind it."""

    episodes: Episode | None = None
    """Plays episodes, where the task is an environment; see :meth:`answers`."""

    tally: dict[str, float] = field(default_factory=dict)
    """What the program counts of itself, by name; the log has the sums over questions."""
    notes: dict[str, Any] = field(default_factory=dict)
    """What the programs of a run remember from step to step, together; JSON-able, part of every checkpoint."""
    round: Round = field(default_factory=lambda: Round())
    """The programs that run together, each with a question of its own."""

    async def answers(self, question: Question, *, n: int, temperature: float, key: tuple[int, ...]) -> list[Response]:
        """``n`` responses of the policy to a question, each by itself; where the task is an environment, each a whole episode.

        A program that draws in no other way can be used on environments, and says so with ``plays``."""
        if self.episodes is not None:
            return await self.episodes(question, self.sampler, n=n, temperature=temperature, key=key)
        return await self.sampler.generate(
            question.tokens, n=n, max_tokens=question.budget, temperature=temperature, key=key
        )

    async def judge(self, responses: Sequence[Response]) -> list[Verdict]:
        """The verdicts on some responses, for programs that decide by them what to draw next.

        What is asked for at the same time is judged together; a response is judged once, its verdict stays with it. A
        verdict that is not ``rewarded`` (its score is NaN) says nothing of its response: it is neither good nor bad, and the
        response is never trained on.
        Raises :class:`~policyopt.errors.UserError` in a program that does not declare "judge", and where nobody may be
        asked, as on held-out questions.
        """
        self._declared("judge")
        if self.verdicts is None:
            raise UserError("this program asks the judge while it draws, so it cannot stand in recipe.decode")
        fresh = [r for r in responses if r.verdict is None]
        for response, verdict in zip(fresh, await self.verdicts(fresh) if fresh else (), strict=True):
            response.verdict = verdict
        return [r.verdict for r in responses if r.verdict is not None]

    async def compare(self, responses: Sequence[Response]) -> list[list[float]]:
        """P[i][j], the probability that response i is better than j, for programs that choose among responses by it; 1/2 where i is
        j, NaN where one of the two has no reward.

        A judge that compares is asked about these responses together, in both orders, so that P[i][j] + P[j][i] = 1; of any
        other one the higher score wins, and equal ones tie. Asks for "judge", and raises, as :meth:`judge` does.
        """
        if any(
            r.verdict is not None and "beats" in r.verdict.parts for r in responses
        ):  # against whom it was is another matter
            for response in responses:
                response.verdict = None
        return preferred(await self.judge(responses))

    async def values(self, responses: Sequence[Response]) -> list[float]:
        """What the critic expects of the states that responses lead to, for programs that decide by it what to draw next.

        A response that has ended is valued before its end token, at the last state that the critic learns. What is
        asked for at the same time is computed together. Raises :class:`~policyopt.errors.UserError` in a program that
        does not declare "critic", and without one.
        """
        self._declared("critic")
        if self.critic is None:
            raise UserError("this program asks what responses are worth, but there is no critic: set recipe.critic")
        return await self.critic(responses) if responses else []

    def sampler_of(self, role: str) -> Sampler:
        """Draws from the model of a role, such as "teacher".

        Raises :class:`~policyopt.errors.UserError` in a program that does not declare "sampler_of[ROLE]", and where the
        role has no model.
        """
        self._declared(f"sampler_of[{role}]")
        if role not in self.samplers:
            option = "--teacher PATH" if role == "teacher" else f"--role {role}=PATH"
            raise UserError(f"this program draws from the role {role!r}, which has no model: name one with {option}")
        return self.samplers[role]

    def asked(self, text: str) -> tuple[int, ...] | None:
        """The prompt in which the policy answers ``text`` in the place of the question, for programs that ask it
        something else; ``None`` where that leaves no room for a response."""
        tokens = self.frame(text)
        return tokens if len(tokens) <= self.room else None

    def count(self, **events: float) -> None:
        """Add to the tally."""
        for name, x in events.items():
            self.tally[name] = self.tally.get(name, 0.0) + x

    def lines(self, tokens: Sequence[int]) -> list[int]:
        """After how many of some tokens each line is over; the last one, broken off or not, at their end."""
        return line_ends(tokens, self.breaks())

    def line_stops(self) -> list[tuple[int]]:
        """Stop sequences: every token that ends a line."""
        return [(token,) for token in sorted(self.breaks())]

    def _declared(self, service: str) -> None:
        if self.program is not None and service not in self.program.uses:
            raise undeclared(type(self.program).__name__, service)


def line_ends(tokens: Sequence[int], breaks: AbstractSet[int]) -> list[int]:
    """After how many of some tokens each line is over, given the tokens that have a line break; the last one, broken off
    or not, at their end."""
    end = len(tokens)
    return [i for i, t in enumerate(tokens, 1) if t in breaks and i < end] + [end] * (end > 0)


@dataclass(frozen=True)
class Answered:
    """A question with responses to it."""

    example: Example
    question: Question
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
    sampler: Sampler
    """Draws from the policy."""
    decode: Callable[[Sequence[int]], str]
    """The text of ids."""
    ask: Callable[[Example], tuple[Question, Context] | None]
    """An example that is none of the run's own, as a question; ``None`` where it does not fit. Text that spells a
    special token stays text in what the context encodes."""
    notes: dict[str, Any]
    """What the program remembers from step to step, JSON-able; part of every checkpoint."""
    counts: dict[str, float]
    """What the log says of the step, to be filled."""


class Episode(Protocol):
    """Plays episodes of one task: ``n`` responses, each of what the policy and the environment said to each other."""

    def __call__(
        self,
        question: Question,
        sampler: Sampler,
        *,
        n: int,
        temperature: float,
        key: tuple[int, ...],
        begun: Begun | None = None,
    ) -> Awaitable[list[Response]]:
        """The episodes, all of which begin alike: at their beginning, or at a place of one that was played."""
        ...


Verdicts = Callable[[Sequence[Response]], Awaitable[list[Verdict]]]
Values = Callable[[Sequence[Response]], Awaitable[list[float]]]


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
        truncation: Truncation | None = None,
    ) -> list[Response]:  # fmt: skip
        """``n`` continuations of ``tokens`` by at most ``max_tokens`` tokens.

        Temperature 0 is greedy. The same key gives the same tokens, whatever else is in flight, up to the float noise
        of matrix products of another shape. A response ends at an end token, after a stop text of the run or one of the
        ``stop`` sequences, or at the budget. ``truncation`` says which tokens may be drawn (forced ones always may). Its first tokens are those of ``forced``. ``top`` asks for the likeliest tokens at each place.
        ``keep`` is a hint: hold what was computed, for later requests that begin with the same tokens. ``resume`` goes on with a
        response that was cut, in place: ``tokens`` is then the prompt that it answers, ``max_tokens`` what it may still
        have.
        """
        ...

    async def logprobs(self, tokens: tuple[int, ...], written: tuple[int, ...], *, temperature: float) -> Response:
        """The continuation ``written`` of ``tokens``, which somebody else wrote, with the policy's log-probabilities and
        entropies."""
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
    plays: ClassVar[bool] = False
    """All that its ``draw`` takes from the policy are :meth:`Context.answers`, so that it can be used on environments. Said in the
    class that has the ``draw``; a subclass with another one says it anew."""

    @property
    def plays_episodes(self) -> bool:
        """Whether the ``draw`` that it has can be used on environments."""
        owner = next(c for c in type(self).__mro__ if "draw" in vars(c))
        return bool(vars(owner).get("plays", False))

    rewrites: ClassVar[bool] = False
    """It has a :meth:`rewrite_context` of its own, so that an episode may become several rows."""

    async def rewrite_context(self, desk: Desk) -> Sequence[Message] | None:
        """Asked between two turns of every episode, held-out ones too, where it ``rewrites``: what the policy reads behind the question in a
        new context, which begins a new row; ``None``: it goes on in the one that it has; an empty sequence: the episode is over."""
        return None

    top_p: TopP = 1.0
    """Draw from the fewest likeliest tokens whose probability is at least this together; 1 draws from all."""
    top_k: TopK | None = None
    """Draw from so many likeliest tokens; unset: from all."""
    min_p: MinP = 0.0
    """Draw from tokens that are at least this share as likely as the likeliest; 0 draws from all."""

    routing_replay: Literal["no", "trainer", "sampler"] = "no"
    """For mixtures of experts: train every token through the experts that it went to as it was drawn, those of the "sampler"
    (R3) or those that the "trainer" takes at the same weights (R2)."""

    @property
    def truncation(self) -> Truncation:
        """Which tokens all that it draws from the policy is drawn from; recorded, and replayed by the trainer."""
        return Truncation(self.top_p, self.top_k, self.min_p)
