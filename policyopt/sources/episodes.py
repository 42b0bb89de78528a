"""Episodes: the policy and an environment take turns, and what they said to each other is one response.

Tokens in, tokens out: what the policy drew stays as it was drawn, what the environment says is encoded once and put behind it, and
nothing is ever rendered again. The policy learns from its own tokens alone."""

from __future__ import annotations

import asyncio
import hashlib
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from policyopt.environments.calls import find_calls
from policyopt.environments.outside import Outside, Overdue
from policyopt.environments.world import Action, Environment, Observation, observed
from policyopt.errors import UserError, first_line
from policyopt.items import Example, Message, Verdict
from policyopt.models.text import Text
from policyopt.part import Count, Positive, part
from policyopt.schema import member
from policyopt.sources.desk import Begun, Desk, Rewrite, turn_starts
from policyopt.sources.program import Question, Response, Sampler


@part
class Episodes:
    """Limits of an episode."""

    turns: Count | None = None
    """The most turns of the policy; unset: what the environment says."""
    turn_tokens: Count | None = None
    """The most tokens of one turn; unset: as many as the response has left."""
    timeout: Positive = 30.0
    """Seconds that one call of the environment, or of a tool, may take; an episode that waits longer is given up."""
    seconds: Positive = 600.0
    """Seconds that an episode may take; one that takes longer ends as it is."""
    at_once: Count = 256
    """Episodes that are under way at the same time."""


@dataclass
class _Record:
    """What an episode has come to."""

    response: Response
    """The row that is being written."""
    prompt: tuple[int, ...]
    budget: int = 0
    """The most tokens of the row."""
    closed: list[Response] = field(default_factory=list)
    """The rows before it."""
    carried: dict[str, str] = field(default_factory=dict)
    ends: list[int] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    states: list[int] = field(default_factory=list)
    durations: list[float] = field(default_factory=list)
    spans: dict[int, float] = field(default_factory=dict)
    """Rewards of single tokens, by their index."""
    numbers: dict[str, float] = field(default_factory=dict)
    total: float = 0.0
    readable: bool = True
    """Every call of a tool could be read."""
    counted: list[dict[str, float]] = field(default_factory=list)
    rewarded: bool = False
    correct: bool | None = None
    reason: str = ""

    def note(self, said: Observation) -> None:
        """Take in what the environment said of what was done."""
        self.rewarded |= said.reward is not None
        self.correct = said.correct if said.correct is not None else self.correct
        self.reason = said.reason or self.reason
        for name, x in said.numbers.items():
            for counts in (self.numbers, *self.counted[-1:]):
                counts[name] = counts.get(name, 0.0) + x

    def turn(self, state: int) -> None:
        """The policy has had a turn in some state."""
        self.ends.append(len(self.response.tokens) - 1)
        self.states.append(state)
        self.rewards.append(0.0)
        self.durations.append(0.0)
        self.counted.append({})

    def paid(self, said: Observation) -> None:
        """What the last turn was worth, and how long it took in the world."""
        self.note(said)
        if self.rewards:
            self.rewards[-1] += said.reward or 0.0
            self.durations[-1] += said.duration or 0.0
            self.total += said.reward or 0.0

    def close(self) -> None:
        """The row that is being written is whole."""
        self.response.context = self.prompt
        self.response.turn = len(self.closed)
        self.response.columns |= {
            "turn_end": list(self.ends), "turn_reward": list(self.rewards), "turn_state": list(self.states),
            "turn_duration": list(self.durations),
        }  # fmt: skip
        for name in self.numbers:
            self.response.columns[member("turn_number", name)] = [counts.get(name, 0.0) for counts in self.counted]
        if self.spans:
            self.response.columns["token_reward"] = [self.spans.get(i, 0.0) for i in range(len(self.response.tokens))]
        self.closed.append(self.response)

    def anew(self, prompt: tuple[int, ...], budget: int) -> bool:
        """Begin another row in another context, where that leaves room for one token."""
        if budget < 1:
            return False
        self.response.stop_reason = "eos"
        self.close()
        self.response = Response([], [], [], temperature=self.response.temperature)
        self.prompt, self.budget = prompt, budget
        self.ends, self.rewards, self.states, self.durations, self.counted = [], [], [], [], []
        self.spans = {}
        return True


@dataclass
class Player:
    """Plays the episodes of a run: one environment for each, made by ``make``."""

    make: Callable[[], Environment]
    text: Text
    limits: Episodes = field(default_factory=Episodes)
    form: str = "json"
    """How the model calls tools (:data:`~policyopt.environments.calls.FORMS`)."""
    judged: bool = False
    """A judge says what episodes are worth that the environment gives no reward."""
    context: int = 1 << 30
    """Tokens that the model reads at most."""
    rewrite: Rewrite | None = None
    """What takes the place of the context between turns (:meth:`~policyopt.sources.program.Rollout.rewrite_context`)."""
    _gates: dict[asyncio.AbstractEventLoop, asyncio.Semaphore] = field(default_factory=dict, repr=False)
    """Of the loop that runs, which is held by it: a later one at the same place in memory is another one."""

    async def play(
        self, example: Example, question: Question, sampler: Sampler, *, n: int, temperature: float, key: tuple[int, ...],
        begun: Begun | None = None,
    ) -> list[Response]:  # fmt: skip
        """``n`` episodes of one task, all of which begin alike, or at a place of one that was played. One row for each, or several
        where the context is rewritten: those of an episode stand together, numbered by ``turn``."""
        episodes = (self._episode(example, question, sampler, temperature, (*key, i), begun) for i in range(n))
        return [row for rows in await asyncio.gather(*episodes) for row in rows]

    def _gate(self) -> asyncio.Semaphore:
        loop = asyncio.get_running_loop()
        if loop not in self._gates:
            self._gates = {loop: asyncio.Semaphore(self.limits.at_once)}
        return self._gates[loop]

    async def _episode(
        self, example: Example, question: Question, sampler: Sampler, temperature: float, key: tuple[int, ...],
        begun: Begun | None,
    ) -> list[Response]:  # fmt: skip
        async with self._gate():
            made = self.make()
            outside = made.outside = Outside(self.limits.timeout, made.instant)
            record = _Record(Response([], [], [], temperature=temperature), question.tokens)
            try:
                await self._turns(made, record, example, question, sampler, temperature, key, begun)
                record.paid(observed(await outside(made.finish)))
            except UserError:
                raise
            except Exception as error:  # an environment is somebody else's program, which raises what it likes
                what = str(error) if isinstance(error, Overdue) else f"{type(error).__name__}: {first_line(error)}"
                return self._closed(record, question, Verdict.failure(f"the environment failed: {what}"))
            finally:
                await self._let_go(made, outside)
            return self._closed(record, question, self._verdict(record, begun is not None))

    async def _let_go(self, made: Environment, outside: Outside) -> None:
        try:
            await outside(made.close)
        except Exception:  # it is gone either way
            pass
        outside.close()

    async def _turns(
        self, made: Environment, record: _Record, example: Example, question: Question, sampler: Sampler, temperature: float,
        key: tuple[int, ...], begun: Begun | None,
    ) -> None:  # fmt: skip
        """Take turns until the environment ends the episode, or turns, tokens or time run out."""
        outside, started = made.outside, time.monotonic()
        opening = observed(await outside(made.reset, seed_of(example), brought(example)))
        record.note(opening)
        schemas = [tool.schema for tool in made.tools] if made.announced else []
        if opening.told() or schemas:
            record.prompt = self.text.opening(example.prompt, opening.told(), schemas)
        record.budget = min(question.budget, self.context - len(record.prompt))
        if record.budget < 1:
            raise UserError(
                f"{example.id}: what the environment says at the beginning makes a prompt of {len(record.prompt)} tokens, and "
                f"the model's context of {self.context} leaves no room for a response: lower it, or take another model"
            )
        said, most, start = opening, self.limits.turns or made.turns, 0
        if begun is not None:
            said, start = await self._again(made, record, begun, opening)
            most = begun.turns
        for turn in range(most):
            room = record.budget - len(record.response.tokens)
            limit = min(room, self.limits.turn_tokens or room)
            drawn = await self._drawn(record, sampler, limit, temperature, (*key, turn))
            record.turn(state_of(said, record))
            if not drawn.finished:
                return
            action = self._action(record.response.tokens[start:], made)
            record.readable &= not action.faults
            said = observed(await outside(made.step, action))
            record.paid(said)
            self._spanned(said, drawn, record)
            if said.done:
                record.response.stop_reason = "eos"
                return
            if turn + 1 == most or time.monotonic() - started > self.limits.seconds:
                return
            between = _Between(example, question, opening, schemas, sampler, temperature, (*key, turn))
            if not await self._heard(record, said, str(action), between):
                return
            start = len(record.response.tokens)

    async def _again(
        self, made: Environment, record: _Record, begun: Begun, said: Observation
    ) -> tuple[Observation, int]:
        """Tell the environment of the turns before a place once more; what stands before it is read. What was said last, and where the
        turn begins. Raises ``RuntimeError`` where the episode is over before."""
        response, starts = begun.response, turn_starts(begun.response)
        ends: list[int] = response.columns["turn_end"]  # type: ignore[assignment]
        for number in range(begun.turn):
            if said.done:
                raise RuntimeError("it does not say the same again, so the episode cannot be gone on with")
            turn = response.tokens[starts[number] : int(ends[number]) + 1]
            said = observed(await made.outside(made.step, self._action(turn, made)))
        start = starts[begun.turn]
        listen(record.response, response.tokens[: self._cut(response.tokens, start, int(ends[begun.turn]), begun.back)])
        return said, start

    def _cut(self, tokens: Sequence[int], start: int, end: int, back: int) -> int:
        """Where a turn is cut: so many tokens before the place where its first call shows itself."""
        places = range(start, end + 1)  # once a call has shown itself it is there in everything longer
        shown = bisect_left(
            places, True, key=lambda i: any(find_calls(self.text.whole(tokens[start : i + 1]), self.form))
        )
        return max(start, min(start + shown, end) - back)

    async def _heard(self, record: _Record, said: Observation, wrote: str, at: _Between) -> bool:
        """Put what the environment said before the policy, in its context or in another one. Whether it goes on."""
        response, told = record.response, said.told()
        heard = self.text.following(told, response.tokens[-1], at.schemas)
        if self.rewrite is not None:

            async def ask(messages: Sequence[Message], most: int) -> str | None:
                words = self.text.following(messages, response.tokens[-1], at.schemas)
                room = min(most, record.budget - len(response.tokens) - len(words))
                if room < 1:
                    return None
                listen(response, words)
                drawn = await self._drawn(record, at.sampler, room, at.temperature, (*at.key, 0))
                record.turn(number_of(f"asked {messages!r} in {record.prompt!r}"))
                return self.text.decode(drawn.tokens)

            size = len(response.tokens), len(heard)
            desk = Desk(wrote, told, *size, record.budget, len(record.closed), ask, record.carried)
            fresh = await self.rewrite(desk)
            if fresh is not None:
                if not fresh:
                    return False
                words = "\n".join(m["content"] for m in (*at.opening.told(), *fresh))
                prompt = self.text.reopened(at.example.prompt, words, at.schemas)
                return record.anew(prompt, min(at.question.budget, self.context - len(prompt)))
        if len(response.tokens) + len(heard) >= record.budget:
            return False
        listen(response, heard)
        return True

    async def _drawn(
        self, record: _Record, sampler: Sampler, tokens: int, temperature: float, key: tuple[int, ...]
    ) -> Response:
        """What the policy says next; it is put behind what was said before."""
        [drawn] = await sampler.generate(
            (*record.prompt, *record.response.tokens), max_tokens=tokens, temperature=temperature, key=key, keep=True
        )
        extend(record.response, drawn)
        return drawn

    def _action(self, tokens: Sequence[int], made: Environment) -> Action:
        text = self.text.decode(tokens)
        return Action(text, *find_calls(self.text.whole(tokens), self.form)) if made.tools else Action(text)

    def _spanned(self, said: Observation, drawn: Response, record: _Record) -> None:
        """Rewards of spans of the action, on tokens."""
        first = len(record.response.tokens) - len(drawn.tokens)
        begins = [len(self.text.decode(drawn.tokens[:i])) for i in range(len(drawn.tokens))] if said.spans else []
        for begin, end, reward in said.spans:
            if not 0 <= begin < end:
                raise ValueError(
                    f"the span ({begin}, {end}) is none: expected 0 <= begin < end, in characters of the action"
                )
            place = first + max(i for i, x in enumerate(begins) if x < end)
            record.spans[place] = record.spans.get(place, 0.0) + reward
            record.rewarded = True

    def _verdict(self, record: _Record, piece: bool) -> Verdict | None:
        """What the episode was worth, as far as the environment says so; ``None`` where that is the judge's to say. A ``piece`` of an
        episode is never judged: it is worth what its turns were."""
        parts = dict(record.numbers)
        if not record.rewarded and not piece:
            if self.judged:
                return None
            return Verdict.absent("the environment gave no reward in this episode")
        score = record.total
        correct = record.correct if record.correct is not None else score > 0
        return Verdict(score, correct, record.readable, record.reason or f"a return of {score:g}", parts=parts)

    def _closed(self, record: _Record, question: Question, verdict: Verdict | None) -> list[Response]:
        record.close()
        for response in record.closed:
            response.verdict = verdict
            if response.context == question.tokens:
                response.context = ()
        return record.closed


@dataclass(frozen=True)
class _Between:
    """What an episode has to do with between two turns."""

    example: Example
    question: Question
    opening: Observation
    schemas: Sequence[Mapping[str, Any]]
    sampler: Sampler
    temperature: float
    key: tuple[int, ...]


def extend(response: Response, drawn: Response) -> None:
    """Put what was drawn behind a response; it is changed in place."""
    said = len(drawn.tokens)
    if response.own:
        response.own += [True] * said
    response.support = [*response.supports, *drawn.support] if drawn.support or response.support else []
    response.tokens += drawn.tokens
    response.logp += drawn.logp
    response.entropy += drawn.entropy
    response.versions += drawn.versions
    response.heat += drawn.heat
    response.routes = drawn.routes
    response.temperature = drawn.temperature


def listen(response: Response, heard: Sequence[int]) -> None:
    """Put tokens behind a response that the policy reads and did not write; it is changed in place."""
    n = len(heard)
    response.own = (response.own or [True] * len(response.tokens)) + [False] * n
    response.support = [*response.supports, *[()] * n] if response.support else []
    response.tokens += heard
    response.logp += [0.0] * n
    response.entropy += [0.0] * n
    response.versions += response.versions[-1:] * n
    if response.heat:
        response.heat += [1.0] * n


def state_of(said: Observation, record: _Record) -> int:
    """A number for what the policy stands before; by default the text that it reads there."""
    text = said.state if said.state is not None else "\n".join(m["content"] for m in said.told())
    if said.state is None and not text:
        text = repr(record.prompt)
    return number_of(text)


def number_of(text: str) -> int:
    """A number below 2^62 that a text alone has, as far as 62 bits tell texts apart."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big") >> 2


def seed_of(example: Example) -> int:
    """The seed of a task's environment: the number ``seed`` that its row brings, or one that follows from its name."""
    inner = example.meta.get("metadata")
    given = (inner if isinstance(inner, Mapping) else example.meta).get("seed")
    return given if isinstance(given, int) and not isinstance(given, bool) else number_of(example.id) % (1 << 31)


def brought(example: Example) -> Mapping[str, Any]:
    """What a row brings for the environment: its further columns, prompt and answer."""
    return {**example.meta, "prompt": [dict(m) for m in example.prompt], "answer": example.answer}
